// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A page is run as its reader does: from top to bottom, each command as it stands. Its indented blocks are
//
//   - commands, if they begin with a word of commandWords. A comment after one that begins with a capital letter is what
//     the command says;
//   - a file, if the first line is `# ` and the name of one;
//   - a quotation from the sources, if they begin with a word of sourceWords;
//   - else what the commands before say, each line of it, with … for anything. If that begins with `Error:`, the last of
//     the commands is refused.
type block struct {
	line  int
	lines []string
}

var (
	commandWords = []string{"export", "unset", "cd", "(cd", "rm", "terraform", "vault"}
	sourceWords  = []string{"ephemeral"}

	fileName   = regexp.MustCompile(`^# ([a-z]+\.tf)$`)
	assignment = regexp.MustCompile(`^[A-Za-z_]+=`)
	remark     = regexp.MustCompile(`\s{2,}# (.*)$`)
)

// blocks are the indented blocks of a page of Markdown. Those of a list are indented further, and none is run.
func blocks(page string) []block {
	var out []block
	inside := false
	for i, line := range strings.Split(page, "\n") {
		text, indented := strings.CutPrefix(line, "    ")
		switch {
		case indented && inside:
			b := &out[len(out)-1]
			b.lines = append(b.lines, text)
		case indented && !strings.HasPrefix(text, " "):
			out = append(out, block{i + 1, []string{text}})
			inside = true
		case strings.TrimSpace(line) != "":
			inside = false
		case inside:
			// An empty line may be within a block, or end it: the next line tells.
			b := &out[len(out)-1]
			b.lines = append(b.lines, "")
		}
	}
	var parts []block
	for _, b := range out {
		parts = append(parts, b.parts()...)
	}
	return parts
}

// parts takes apart blocks that only an empty line divides, as what a command says and the command: Markdown sees one.
func (b block) parts() []block {
	var out []block
	begin := 0
	for i := range b.lines {
		if i > begin && b.lines[i-1] == "" && b.lines[i] != "" && (b.at(i).begins() || b.at(begin).isCommand()) {
			out = append(out, block{b.line + begin, trimmed(b.lines[begin:i])})
			begin = i
		}
	}
	return append(out, block{b.line + begin, trimmed(b.lines[begin:])})
}

func (b block) at(i int) block { return block{b.line + i, b.lines[i:]} }

func trimmed(lines []string) []string {
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// begins reports whether a block of its own is here, and not the rest of a file.
func (b block) begins() bool { return b.file() != "" || b.isCommand() }

func (b block) file() string {
	if m := fileName.FindStringSubmatch(b.lines[0]); m != nil {
		return m[1]
	}
	return ""
}

func (b block) isCommand() bool {
	first, _, _ := strings.Cut(b.lines[0], " ")
	return slices.Contains(commandWords, first) || assignment.MatchString(first)
}

func (b block) isQuotation() bool {
	first, _, _ := strings.Cut(b.lines[0], " ")
	return slices.Contains(sourceWords, first)
}

func (b block) isRefusal() bool { return strings.HasPrefix(b.lines[0], "Error:") }

// statements are the commands of a block: one that goes on ends with \ or &&.
func (b block) statements() []string {
	var out []string
	more := false
	for _, line := range b.lines {
		if more {
			out[len(out)-1] += "\n" + line
		} else {
			out = append(out, line)
		}
		more = strings.HasSuffix(line, `\`) || strings.HasSuffix(line, "&&")
	}
	return out
}

// reads runs a page in the directory of tf.
func (tf *terraform) reads(page string) {
	tf.t.Helper()
	raw, err := os.ReadFile(page)
	tf.must(err)
	// Each command is a shell of its own, which takes over directory and variables from the one before it.
	memory := filepath.Join(filepath.Dir(tf.dir), "environment")
	tf.must(os.WriteFile(memory, []byte("cd '"+tf.dir+"'\n"), 0o600))
	here := strings.NewReplacer("http://127.0.0.1:8200", tf.client.Address(), "VAULT_TOKEN=root", "VAULT_TOKEN="+tf.client.Token())

	// run returns what a command says, and whether it was refused.
	run := func(command string) (string, bool) {
		script := fmt.Sprintf(". '%[1]s'\n%[2]s\nstatus=$?\n{ export -p | grep -v '^export PWD='; [ -z \"$role_id\" ] || echo \"role_id=$role_id\"; echo \"cd '$PWD'\"; } > '%[1]s'\nexit $status",
			memory, here.Replace(command))
		cmd := exec.Command("sh", "-c", script)
		cmd.Env = tf.environ
		out, err := cmd.CombinedOutput()
		tf.keepsSecrets(string(out))
		return string(out), err != nil
	}

	count := 0
	var last string // what the commands of the last block said
	all := blocks(string(raw))
	for i, b := range all {
		where := fmt.Sprintf("%s:%d", filepath.Base(page), b.line)
		switch {
		case b.file() != "":
			tf.puts(b.file(), strings.Join(b.lines[1:], "\n")+"\n")
		case b.isQuotation():
			tf.quotes(where, strings.Join(b.lines, "\n"))
		case b.isCommand():
			last = ""
			statements := b.statements()
			for j, command := range statements {
				said, refused := run(command)
				want := j == len(statements)-1 && i+1 < len(all) && all[i+1].isRefusal()
				if refused != want {
					tf.t.Fatalf("%s: %s\nrefused: %v, want %v\n%s", where, command, refused, want, said)
				}
				if m := remark.FindStringSubmatch(command); m != nil && regexp.MustCompile(`^[A-Z]`).MatchString(m[1]) && !strings.Contains(flat(said), m[1]) {
					tf.t.Fatalf("%s: %s\nsays\n%s", where, command, said)
				}
				last += said
				count++
			}
		default:
			for _, line := range b.lines {
				if !matches(last, line) {
					tf.t.Errorf("%s: %q is not in what was said:\n%s", where, line, last)
				}
			}
		}
	}
	if count == 0 {
		tf.t.Errorf("%s has no command", page)
	}
}

// matches reports whether line is in what was said, however that is broken into lines, with … for anything.
func matches(said, line string) bool {
	var parts []string
	for part := range strings.SplitSeq(flat(line), "…") {
		parts = append(parts, regexp.QuoteMeta(part))
	}
	return regexp.MustCompile(strings.Join(parts, ".*")).MatchString(flat(said))
}

// quotes asserts that the sources beside have what the page shows of them.
func (tf *terraform) quotes(where, text string) {
	tf.t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "bootstrap", "terraform", "*", "*.tf"))
	tf.must(err)
	for _, f := range files {
		raw, err := os.ReadFile(f)
		tf.must(err)
		if strings.Contains(string(raw), text) {
			return
		}
	}
	tf.t.Errorf("%s: none of %q has\n%s", where, files, text)
}

func terraformGuide(_ *testing.T, e *env) {
	e.terraform().reads(filepath.Join("..", "docs", "terraform.md"))
}

func terraformExample(_ *testing.T, e *env) {
	tf := e.terraform()
	tf.dir = filepath.Join(filepath.Dir(tf.dir), checkout, "bootstrap", "terraform")
	tf.reads(filepath.Join(tf.dir, "README.md"))
}

func TestBlocks(t *testing.T) {
	t.Parallel()
	page := `Text.

    # main.tf
    a {

      b = 1
    }

    # roles.tf
    c {}

    terraform apply
    (cd x &&
    terraform plan)      # No changes.

    Error: no
    …
    no

    x=$(vault read y)

Text.

    "2"

- a list

      not a block
`
	var got []string
	for _, b := range blocks(page) {
		kind := "output"
		switch {
		case b.file() != "":
			kind = "file"
		case b.isCommand():
			kind = "commands"
		case b.isRefusal():
			kind = "refusal"
		}
		got = append(got, fmt.Sprintf("%d %s %d", b.line, kind, len(b.lines)))
	}
	want := []string{"3 file 5", "9 file 2", "12 commands 3", "16 refusal 3", "20 commands 1", "24 output 1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (block{lines: []string{"a &&", "b", "c"}}).statements(); !slices.Equal(got, []string{"a &&\nb", "c"}) {
		t.Errorf("statements %q", got)
	}
	for _, tc := range []struct {
		said, line string
		want       bool
	}{
		{"the end\nof a line", "end of", true},
		{"a 1 b", "a … b", true},
		{"a.b", "a b", false},
		{"axb", "a.b", false},
		{"", "…", true},
	} {
		if got := matches(tc.said, tc.line); got != tc.want {
			t.Errorf("%q in %q: %v", tc.line, tc.said, got)
		}
	}
}
