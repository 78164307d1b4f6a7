// SPDX-License-Identifier: MPL-2.0

package browser

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// look.js measures the page: what is too pale to read, and what is wider than the screen.
//
//go:embed look.js
var lookScript string

// looks are the ways in which a person may see the page.
var looks = []struct {
	name          string
	width, height int64
	scheme, media string
}{
	{"light", 1280, 900, "light", ""},
	{"dark", 1280, 900, "dark", ""},
	{"narrow-light", 390, 844, "light", ""},
	{"narrow-dark", 320, 640, "dark", ""},
	{"print", 794, 1123, "dark", "print"},
}

// seen is what look.js measures.
type seen struct {
	Background float64  `json:"background"` // luminance
	Wide       []string `json:"wide"`
	Pale       []string `json:"pale"`
	Texts      int      `json:"texts"`
	Scripts    int      `json:"scripts"`
	Links      int      `json:"links"`
	Lowest     float64  `json:"lowest"`
	Height     int      `json:"height"`
}

// browse opens a file, and says what is wrong with it in any of the looks.
func browse(t *testing.T, file string) (faults []string) {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(programs.chrome), chromedp.NoSandbox)
	alloc, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	defer cancel()
	ctx, cancel := chromedp.NewContext(alloc)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()

	address := "file://" + file
	var mu sync.Mutex
	fault := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if text := fmt.Sprintf(format, args...); !slices.Contains(faults, text) {
			faults = append(faults, text)
		}
	}
	must(t, chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *network.EventRequestWillBeSent:
			if ev.Request.URL != address {
				fault("asks for %s", ev.Request.URL)
			}
		case *runtime.EventConsoleAPICalled:
			fault("the console has a message of type %s", ev.Type)
		case *runtime.EventExceptionThrown:
			fault("exception: %s", ev.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			fault("log: %s", ev.Entry.Text)
		}
	}))
	call(t, ctx, network.Enable, network.EnableParams{})
	call(t, ctx, log.Enable, cdp.Empty{})
	call(t, ctx, runtime.Enable, cdp.Empty{})
	name := strings.ReplaceAll(t.Name(), "/", "-")
	text, err := os.ReadFile(file)
	must(t, err)
	keep(t, name+".html", text)
	for _, l := range looks {
		call(t, ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: l.width, Height: l.height, DeviceScaleFactor: 1, Mobile: l.width < 500,
		})
		call(t, ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Media: l.media, Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.scheme}},
		})
		must(t, chromedp.Do(ctx, chromedp.Navigate(address)))
		raw, err := chromedp.Run(ctx, chromedp.Evaluate[string](lookScript))
		must(t, err)
		var s seen
		must(t, json.Unmarshal([]byte(raw), &s))
		for _, text := range s.Wide {
			fault("%s: wider than the screen: %s", l.name, text)
		}
		for _, text := range s.Pale {
			fault("%s: too pale: %s", l.name, text)
		}
		if dark := s.Background < 0.2; dark != (l.scheme == "dark" && l.media == "") {
			fault("%s: the background has luminance %.2f", l.name, s.Background)
		}
		if s.Scripts > 0 || s.Links > 0 {
			fault("%s: %d scripts, %d links and the like", l.name, s.Scripts, s.Links)
		}
		if s.Texts < 20 {
			fault("%s: only %d texts are seen", l.name, s.Texts)
		}
		t.Logf("%s: %d texts, lowest contrast %.2f", l.name, s.Texts, s.Lowest)
		if os.Getenv(shots) != "" {
			take := chromedp.FullScreenshot(100)
			if s.Height > 12000 { // more than a picture may have
				take = chromedp.CaptureScreenshot()
			}
			picture, err := chromedp.Run(ctx, take)
			must(t, err)
			keep(t, name+"-"+l.name+".png", picture)
		}
	}
	sheet, err := chromedp.Run(ctx, chromedp.PrintToPDF())
	if err != nil || len(sheet) < 20000 {
		fault("printed: %d bytes, %v", len(sheet), err)
	}
	keep(t, name+".pdf", sheet)
	mu.Lock()
	defer mu.Unlock()
	return faults
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func call[P, R any](t *testing.T, ctx context.Context, cmd cdp.Command[P, R], params P) {
	t.Helper()
	_, err := chromedp.Call(ctx, cmd, params)
	must(t, err)
}

// shots names a directory in which what was seen is kept.
const shots = "SHOTS"

func keep(t *testing.T, name string, raw []byte) {
	t.Helper()
	dir := os.Getenv(shots)
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
		t.Error(err)
	}
}

// mostBytes is what a page may weigh, however large the fleet.
const mostBytes = 5 << 20

func TestPage(t *testing.T) {
	for _, test := range []struct {
		name   string
		actors func() []actor
		args   []string
	}{
		{"none", func() []actor { return nil }, nil},
		{"small", small, nil},
		{"thousand", func() []actor { return large(1000) }, nil},
		{"large", func() []actor { return large(100_000) }, []string{"-within", "400d"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := perform(t, test.actors(), test.args...)
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d KiB", info.Size()>>10)
			if info.Size() > mostBytes || info.Mode().Perm() != 0o600 {
				t.Errorf("%d bytes, mode %v", info.Size(), info.Mode())
			}
			for _, fault := range browse(t, file) {
				t.Error(fault)
			}
		})
	}
}

// TestFaultsAreSeen holds the checks themselves: a page with every fault has them found.
func TestFaultsAreSeen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bad.html")
	const bad = `<!DOCTYPE html><html lang="en"><meta name="viewport" content="width=device-width"><body style="background: #fff">
<p style="color: #aaa; background: #fff">pale</p><p style="width: 3000px">wide</p><svg><text fill="#ddd" y="9">pale, too</text></svg>
<img src="http://127.0.0.1:1/image.png"><script>console.log("hello"); undefinedFunction()</script><a href="https://example.com/">link</a></html>`
	if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(browse(t, file), "\n")
	for _, want := range []string{
		"light: too pale: p “pale”", "light: too pale: text “pale, too”", "light: wider than the screen: ", "asks for http://127.0.0.1:1/image.png",
		"the console has a message", "exception: ", "dark: the background", "1 scripts, 2 links and the like", "only ",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("not found: %s", want)
		}
	}
	if t.Failed() {
		t.Log(all)
	}
}
