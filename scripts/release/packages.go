// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // a kind of package
	_ "github.com/goreleaser/nfpm/v2/rpm" // another
)

// writePackages packs the tool and its units for Debian and for RPM, as packages.yaml says.
func (r *release) writePackages(context.Context) error {
	for _, b := range r.of(tool) {
		for _, kind := range []string{"deb", "rpm"} {
			if err := r.writePackage(b, kind); err != nil {
				return fmt.Errorf("%s of %s: %w", kind, b.name(), err)
			}
		}
	}
	return nil
}

func (r *release) writePackage(b binary, kind string) error {
	variables := map[string]string{"ARCH": b.arch, "VERSION": r.version, "BINARY": b.path, "DIST": r.dir}
	config, err := nfpm.ParseFileWithEnvMapping("scripts/release/packages.yaml", func(name string) string { return variables[name] })
	if err != nil {
		return err
	}
	config.MTime = r.date
	for _, c := range config.Contents {
		if c.FileInfo != nil {
			c.FileInfo.MTime = r.date
		}
	}
	info, err := config.Get(kind)
	if err != nil {
		return err
	}
	info = nfpm.WithDefaults(info)
	packager, err := nfpm.Get(kind)
	if err != nil {
		return err
	}
	if info.Target = filepath.Join(r.dir, packager.ConventionalFileName(info)); info.MTime != r.date {
		return fmt.Errorf("the date is %s", info.MTime)
	}
	out, err := os.Create(info.Target)
	if err != nil {
		return err
	}
	if err := packager.Package(info, out); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
