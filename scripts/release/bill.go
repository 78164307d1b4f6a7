// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"os"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/CycloneDX/cyclonedx-gomod/pkg/generate/bin"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
)

const (
	sdk          = "github.com/hashicorp/vault/sdk"
	bootstrapSDK = module + "/bootstrap/sdk"
	// develVersion is what Go writes where a module is a directory.
	develVersion = "(devel)"
)

// writeBills writes what each binary is made of, as the binary itself tells it.
func (r *release) writeBills(context.Context) error {
	for _, b := range r.binaries {
		bom, err := r.bill(b)
		if err != nil {
			return fmt.Errorf("%s: %w", b.name(), err)
		}
		var out bytes.Buffer
		if err := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).Encode(bom); err != nil {
			return err
		}
		if err := os.WriteFile(strings.TrimSuffix(b.path, ".exe")+".cdx.json", out.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r *release) bill(b binary) (*cyclonedx.BOM, error) {
	info, err := buildinfo.ReadFile(b.path)
	if err != nil {
		return nil, err
	}
	if info.GoVersion != r.toolchain {
		return nil, fmt.Errorf("built with %s, not with %s", info.GoVersion, r.toolchain)
	}
	generator, err := bin.NewGenerator(b.path, bin.WithIncludeStdlib(true), bin.WithVersionOverride(r.version), bin.WithLogger(zerolog.New(os.Stderr).Level(zerolog.WarnLevel)))
	if err != nil {
		return nil, err
	}
	bom, err := generator.Generate()
	if err != nil {
		return nil, err
	}

	linked := "none"
	for i := range *bom.Components {
		c := &(*bom.Components)[i]
		if c.Name != sdk {
			continue
		}
		linked = "official " + c.Version
		if c.Version == develVersion {
			// Not the official one, so nobody should look for its flaws here.
			linked = "bootstrap"
			r.renameSDK(bom, c)
		}
	}
	sum, err := fileSum(b.path)
	if err != nil {
		return nil, err
	}
	// A number that is this binary's alone, whoever builds it.
	digest := sha256.Sum256([]byte(sum + r.version))
	bom.SerialNumber = uuid.NewSHA1(uuid.NameSpaceOID, digest[:]).URN()
	bom.Metadata.Timestamp = r.date.Format("2006-01-02T15:04:05Z")
	bom.Metadata.Properties = with(bom.Metadata.Properties,
		cyclonedx.Property{Name: "apikeys:commit", Value: r.commit},
		cyclonedx.Property{Name: "apikeys:sdk", Value: linked})
	bom.Metadata.Component.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: sum}}
	bom.Metadata.Component.Licenses = &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "MPL-2.0"}}}
	return bom, nil
}

// renameSDK calls the SDK of this repository what it is, wherever the bill names it.
func (r *release) renameSDK(bom *cyclonedx.BOM, c *cyclonedx.Component) {
	before := c.BOMRef
	c.Name, c.Version = bootstrapSDK, r.version
	c.PackageURL = "pkg:golang/" + module + "@" + r.version + "#bootstrap/sdk"
	c.BOMRef = c.PackageURL
	c.Description = "stands for " + sdk
	c.ExternalReferences = nil
	rename := func(ref *string) {
		if *ref == before {
			*ref = c.BOMRef
		}
	}
	for i := range *bom.Dependencies {
		d := &(*bom.Dependencies)[i]
		rename(&d.Ref)
		if d.Dependencies != nil {
			for j := range *d.Dependencies {
				rename(&(*d.Dependencies)[j])
			}
		}
	}
	for _, composition := range *bom.Compositions {
		if composition.Dependencies == nil {
			continue
		}
		for j, ref := range *composition.Dependencies {
			if string(ref) == before {
				(*composition.Dependencies)[j] = cyclonedx.BOMReference(c.BOMRef)
			}
		}
	}
}

func with(have *[]cyclonedx.Property, more ...cyclonedx.Property) *[]cyclonedx.Property {
	all := more
	if have != nil {
		all = append(append([]cyclonedx.Property{}, *have...), more...)
	}
	return &all
}
