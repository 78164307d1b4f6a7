// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"bufio"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

// The state file is a line of text that names its form, and then sealed blocks: each a
// length (4 bytes), a nonce (12 bytes) and AES-256-GCM. What is authenticated besides
// is the mount, the role that the edge is bound to, and the number of the block; the
// last block is empty, so that one that was cut short is noticed.
const (
	stateForm  = "apikeys edge state 1\n"
	blockBytes = 1 << 20
	saveEvery  = time.Minute
	maxBlock   = 4 * blockBytes
)

// stateHead is the first block, as JSON.
type stateHead struct {
	Secret []byte `json:"secret"` // of the digests
	// Mount is the id of the mount that all this is about.
	Mount string `json:"mount,omitempty"`
	// Wall is the highest time that the wall clock has shown. At is what it showed when
	// the file was written, and Server what the server's time was then.
	Wall   int64 `json:"wall"`
	At     int64 `json:"at"`
	Server int64 `json:"server"`
	// Stale is the mount's max_staleness.
	Stale int64        `json:"stale"`
	Facts []stateFacts `json:"facts"`
	// Keys and Roles are about how many there are.
	Keys  int `json:"keys"`
	Roles int `json:"roles"`
}

// stateFacts are what roles say; keys name them by their number.
type stateFacts struct {
	Scopes    []string          `json:"scopes,omitempty"`
	Networks  []netip.Prefix    `json:"networks,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	RateLimit float64           `json:"rate_limit,omitempty"`
	Disabled  bool              `json:"disabled,omitempty"`
}

// The other blocks hold records: a letter, and what follows from it. Numbers are
// varints, texts have their length in front.
const (
	recordRole = 'R' // id, name; numbered from 0
	recordKey  = 'K'
)

const (
	flagDynamic = 1 << iota
	flagClosed  // a decision that closed something has not been asked about yet
	flagEnded
)

var errEarlier = errors.New("the clock shows an earlier time than the state file was written at")

// stateCipher reads the key, or makes it.
func stateCipher(file string) (cipher.AEAD, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // it never fails
		text = []byte(base64.StdEncoding.EncodeToString(key) + "\n")
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("state key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("state key file %s: want 32 bytes in base64", file)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// sealer writes blocks.
type sealer struct {
	w     io.Writer
	aead  cipher.AEAD
	bound string
	n     uint64
}

func (s *sealer) extra() []byte {
	return binary.BigEndian.AppendUint64([]byte(stateForm+s.bound+"\x00"), s.n)
}

func (s *sealer) block(plain []byte) error {
	nonce := make([]byte, s.aead.NonceSize())
	_, _ = rand.Read(nonce) // it never fails
	sealed := s.aead.Seal(nonce, nonce, plain, s.extra())
	s.n++
	head := binary.BigEndian.AppendUint32(nil, uint32(len(sealed))) //nolint:gosec // blocks are small
	if _, err := s.w.Write(head); err != nil {
		return err
	}
	_, err := s.w.Write(sealed)
	return err
}

// opener reads them.
type opener struct {
	r     io.Reader
	aead  cipher.AEAD
	bound string
	n     uint64
}

var errCut = errors.New("the state file is cut short, or not of this edge")

func (o *opener) block() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(o.r, head[:]); err != nil {
		return nil, errCut
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxBlock || int(size) < o.aead.NonceSize() {
		return nil, errCut
	}
	sealed := make([]byte, size)
	if _, err := io.ReadFull(o.r, sealed); err != nil {
		return nil, errCut
	}
	extra := (&sealer{bound: o.bound, n: o.n}).extra()
	o.n++
	nonce := sealed[:o.aead.NonceSize()]
	plain, err := o.aead.Open(nil, nonce, sealed[len(nonce):], extra)
	if err != nil {
		return nil, errCut
	}
	return plain, nil
}

func (v *Verifier) bound() string {
	return v.opt.Client.Address() + "\x00" + v.opt.Client.Namespace() + "\x00" + v.opt.Mount + "\x00" + v.opt.Role
}

// keepState writes the state file now and then until ctx ends, and once more then.
func (v *Verifier) keepState(ctx context.Context) {
	if v.opt.StateFile == "" {
		return
	}
	for last := false; !last; {
		select {
		case <-ctx.Done():
			last = true
		case <-time.After(saveEvery):
		}
		if err := v.saveState(); err != nil {
			v.log.Error("the state file cannot be written", "error", err)
		}
	}
}

// saveState writes what is held to the state file: beside it first, so that a crash
// leaves the one before.
func (v *Verifier) saveState() error {
	aead, err := stateCipher(v.opt.StateKeyFile)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(v.opt.StateFile), ".state-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	w := bufio.NewWriterSize(file, blockBytes)
	if _, err := w.WriteString(stateForm); err != nil {
		return err
	}
	if err := v.writeState(&sealer{w: w, aead: aead, bound: v.bound()}); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), v.opt.StateFile)
}

// writeState writes the blocks.
func (v *Verifier) writeState(s *sealer) error {
	now, _ := v.clock.elapsed()
	confirmed := v.confirmed.Load()
	head := stateHead{Secret: v.secret, Server: v.clock.server(now)}
	v.feed.mu.Lock()
	head.Mount, head.Stale, head.Roles = v.feed.mount, v.feed.stale, len(v.feed.roles)
	v.feed.mu.Unlock()
	head.At = v.clock.wall().UnixNano()
	v.highWall.Store(max(v.highWall.Load(), head.At))
	head.Wall = v.highWall.Load()

	type line struct {
		d digest
		h *held
	}
	lines := make([]line, 0, v.keys.size.Load())
	factNumbers := map[*facts]uint64{}
	v.keys.all(func(d digest, h *held) {
		lines = append(lines, line{d, h})
		if _, known := factNumbers[h.facts]; !known {
			factNumbers[h.facts] = uint64(len(head.Facts))
			f := h.facts
			head.Facts = append(head.Facts, stateFacts{f.scopes, f.networks, f.metadata, f.rateLimit, f.disabled})
		}
	})
	head.Keys = len(lines)
	raw, err := json.Marshal(&head) //nolint:gosec // it is sealed
	if err != nil {
		return err
	}
	// The head may be long where every role says something else.
	for len(raw) > blockBytes {
		if err := s.block(append([]byte{1}, raw[:blockBytes]...)); err != nil {
			return err
		}
		raw = raw[blockBytes:]
	}
	if err := s.block(append([]byte{0}, raw...)); err != nil {
		return err
	}

	roles := map[*role]uint64{}
	var out []byte
	for _, l := range lines {
		h := l.h
		number, known := roles[h.role]
		if !known {
			number = uint64(len(roles))
			roles[h.role] = number
			out = append(out, recordRole)
			out = appendText(out, h.role.id)
			out = appendText(out, h.roleName())
		}
		noticed := h.noticed()
		since := max(confirmed, h.own)
		if noticed || v.reset.Load() > h.position {
			since = v.confirmedBefore(h)
		}
		var flags byte
		if h.dynamic {
			flags |= flagDynamic
		}
		if noticed && (h.role.closing() > h.position || h.closing.Load() > h.position) {
			flags |= flagClosed
		}
		if h.ended.Load() != 0 {
			flags |= flagEnded
		}
		out = append(out, recordKey, flags)
		out = append(out, l.d[:]...)
		out = binary.AppendUvarint(out, number)
		out = binary.AppendUvarint(out, factNumbers[h.facts])
		out = appendText(out, h.keyID())
		out = binary.AppendVarint(out, int64(h.version))
		out = binary.AppendVarint(out, now-since)
		out = h.line.AppendBinary(out)
		if len(out) >= blockBytes {
			if err := s.block(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
	if len(out) > 0 {
		if err := s.block(out); err != nil {
			return err
		}
	}
	return s.block(nil)
}

func appendText(out []byte, text string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(text))), text...)
}

// loadState takes over what a file holds. One that is absent, damaged, another edge's
// or from the future is as good as none; only its key must be readable.
func (v *Verifier) loadState() error {
	aead, err := stateCipher(v.opt.StateKeyFile)
	if err != nil {
		return err
	}
	// One that could not be written would be missed after the next restart.
	trial, err := os.CreateTemp(filepath.Dir(v.opt.StateFile), ".state-*")
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	_ = trial.Close()
	_ = os.Remove(trial.Name())
	file, err := os.Open(v.opt.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	defer file.Close()
	if err := v.readState(bufio.NewReaderSize(file, blockBytes), aead); err != nil {
		v.log.Error("the state file is left aside", "error", err)
		v.keys, v.loaded = newKeyStore(v.opt.MaxKeys), notConfirmed
		v.feed.init()
	}
	return nil
}

func (v *Verifier) readState(r io.Reader, aead cipher.AEAD) error {
	form := make([]byte, len(stateForm))
	if _, err := io.ReadFull(r, form); err != nil || string(form) != stateForm {
		return errCut
	}
	o := &opener{r: r, aead: aead, bound: v.bound()}
	var raw []byte
	for more := true; more; {
		block, err := o.block()
		if err != nil || len(block) == 0 {
			return errCut
		}
		more = block[0] == 1
		raw = append(raw, block[1:]...)
	}
	var head stateHead
	if err := json.Unmarshal(raw, &head); err != nil || len(head.Secret) != 32 {
		return errCut
	}
	// Time only goes on: who sets the clock back must not bring back what has ended.
	wall := v.clock.wall().UnixNano()
	if wall < head.Wall {
		return errEarlier
	}
	away := wall - head.At
	all := make([]*facts, len(head.Facts))
	for i, f := range head.Facts {
		all[i] = intern(&facts{
			scopes: f.Scopes, networks: f.Networks, anyone: len(f.Networks) == 0, metadata: f.Metadata, rateLimit: f.RateLimit, disabled: f.Disabled,
		})
	}
	now, _ := v.clock.elapsed()
	v.keys.reserve(head.Keys)
	v.feed.roles = make(map[string]*role, min(head.Roles, v.opt.MaxKeys))
	roles := make([]namedRole, 0, min(head.Roles, v.opt.MaxKeys))
	for {
		block, err := o.block()
		if err != nil {
			return err
		}
		if len(block) == 0 {
			break
		}
		in := &stateReader{raw: block}
		for len(in.raw) > 0 && !in.bad {
			switch in.byte() {
			case recordRole:
				roles = append(roles, namedRole{id: in.text(), name: in.text()})
			case recordKey:
				v.readKey(in, roles, all, now-away)
			default:
				in.bad = true
			}
		}
		if in.bad {
			return errCut
		}
	}
	v.secret = head.Secret
	v.feed.mount, v.feed.stale = head.Mount, head.Stale
	v.highWall.Store(wall) // no earlier than what the file had
	v.clock.resume(now, head.Server+away)
	if limit := head.Stale; v.opt.MaxStaleness == 0 || limit < int64(v.opt.MaxStaleness) {
		v.stale.Store(limit)
	}
	return nil
}

// namedRole is a role as the file has it.
type namedRole struct {
	id, name string
	role     *role // made with its first key, whose text has its id
}

// readKey takes over one key; then is when the file was written (elapsed).
func (v *Verifier) readKey(in *stateReader, roles []namedRole, all []*facts, then int64) {
	flags := in.byte()
	var d digest
	copy(d[:], in.bytes(uint64(len(d))))
	role, fact := in.uvarint(), in.uvarint()
	keyID, version, ago := in.bytes(in.uvarint()), in.varint(), in.varint()
	line, rest, err := timeline.ReadBinary(in.raw)
	in.raw = rest
	if err != nil || in.bad || role >= uint64(len(roles)) || fact >= uint64(len(all)) {
		in.bad = true
		return
	}
	h := newHeld(line)
	r := &roles[role]
	if h.names, err = newNames(string(keyID), r.id, r.name); err != nil {
		in.bad = true
		return
	}
	if r.role == nil {
		r.role = v.feed.role(h.roleID())
	}
	h.role, h.facts = r.role, all[fact]
	h.version, h.dynamic, h.own = int32(version), flags&flagDynamic != 0, then-ago //nolint:gosec // as it was written
	if flags&flagEnded != 0 {
		h.ended.Store(max(then, 1))
	}
	h.used.Store(int32(seconds(then))) //nolint:gosec // not that many
	if flags&flagClosed != 0 {
		h.mark(1, true, h.own)
		v.feed.position.Store(1)
		v.asks.stirred.Add(1)
	}
	v.loaded = max(v.loaded, h.own)
	v.keys.put(d, h)
	if h.dynamic {
		v.feed.leased[h.keyID()] = d
	}
}

// stateReader reads records; bad is set where there are none.
type stateReader struct {
	raw []byte
	bad bool
}

func (r *stateReader) bytes(n uint64) []byte {
	if n > uint64(len(r.raw)) {
		r.bad, r.raw = true, nil
		return nil
	}
	out := r.raw[:n]
	r.raw = r.raw[n:]
	return out
}

func (r *stateReader) byte() byte {
	if b := r.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (r *stateReader) text() string { return string(r.bytes(r.uvarint())) }

func (r *stateReader) uvarint() uint64 {
	n, size := binary.Uvarint(r.raw)
	if size <= 0 {
		r.bad, r.raw = true, nil
		return 0
	}
	r.raw = r.raw[size:]
	return n
}

func (r *stateReader) varint() int64 {
	n, size := binary.Varint(r.raw)
	if size <= 0 {
		r.bad, r.raw = true, nil
		return 0
	}
	r.raw = r.raw[size:]
	return n
}
