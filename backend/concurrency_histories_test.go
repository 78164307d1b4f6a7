// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/hashicorp/vault/sdk/logical"
)

// What the histories consist of.
type (
	histInput struct {
		op      string // read, rotate, revoke, verify
		version int    // of revoke and verify
		grace   bool   // of rotate
	}
	histOutput struct {
		version int
		valid   bool
		refused bool
	}
	histState struct {
		last, current int
		dead          string // version numbers, each between commas
	}
)

func (s histState) kill(n int) histState {
	if !s.isDead(n) {
		s.dead += fmt.Sprintf(",%d,", n)
	}
	return s
}

func (s histState) isDead(n int) bool { return strings.Contains(s.dead, fmt.Sprintf(",%d,", n)) }

// roleModel is a static role as those see it who read, rotate, revoke and verify:
// whatever they do at the same time, it happens one after the other.
var roleModel = porcupine.Model{
	Init: func() any { return histState{last: 1, current: 1} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(histState), input.(histInput), output.(histOutput)
		switch in.op {
		case "read":
			return out.version == s.current, s
		case "verify":
			return out.valid == (in.version <= s.last && !s.isDead(in.version)), s
		case "rotate":
			if out.refused {
				return true, s // too many live
			}
			if !in.grace {
				s = s.kill(s.current)
			}
			s.last++
			s.current = s.last
			return out.version == s.last, s
		default:
			s = s.kill(in.version)
			if in.version == s.current {
				s.last++
				s.current = s.last
			}
			return out.version == s.current, s
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	for round := range 25 {
		m := mountOn(withoutSchemas{t}, yielding{&logical.InmemStorage{}}, newFakeClock())
		m.write("roles/a", map[string]any{"rotation_period": 0})
		var clock atomic.Int64
		var keys sync.Map // by version
		var mu sync.Mutex
		var history []porcupine.Operation
		perform := func(client int, in histInput, do func() histOutput) histOutput {
			call := clock.Add(1)
			out := do()
			op := porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: clock.Add(1)}
			mu.Lock()
			defer mu.Unlock()
			history = append(history, op)
			return out
		}
		var wg sync.WaitGroup
		for client := range 6 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(client))) //nolint:gosec // a test's choices
				known := 1
				for range 8 {
					switch dice := r.IntN(10); {
					case dice < 4:
						out := perform(client, histInput{op: "read"}, func() histOutput {
							got := m.read("creds/a")
							keys.Store(got["version"].(int), got["api_key"])
							return histOutput{version: got["version"].(int)}
						})
						known = out.version
					case dice < 6:
						in := histInput{op: "rotate", grace: r.IntN(2) == 0}
						data := map[string]any{"grace_period": 0}
						if in.grace {
							data["grace_period"] = 3600
						}
						perform(client, in, func() histOutput {
							resp, err := m.send(logical.UpdateOperation, "rotate/a", data)
							if err != nil {
								return histOutput{refused: true}
							}
							return histOutput{version: resp.Data["version"].(int)}
						})
					case dice < 7:
						perform(client, histInput{op: "revoke", version: known}, func() histOutput {
							return histOutput{version: m.write("revoke/a", map[string]any{"version": known})["version"].(int)}
						})
					default:
						n := 1 + r.IntN(known)
						key, ok := keys.Load(n)
						if !ok {
							continue
						}
						perform(client, histInput{op: "verify", version: n}, func() histOutput {
							return histOutput{valid: m.write("verify", map[string]any{"key": key})["valid"].(bool)}
						})
					}
				}
			})
		}
		wg.Wait()
		if res := porcupine.CheckOperationsTimeout(roleModel, history, 20*time.Second); res != porcupine.Ok {
			for _, op := range history {
				t.Logf("%d-%d %s", op.Call, op.Return, roleModel.DescribeOperation(op.Input, op.Output))
			}
			t.Fatalf("round %d: %s", round, res)
		}
	}
}
