// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"errors"
	"strconv"
	"sync"
	"testing"
)

func TestRecentKeepsWhatIsInUse(t *testing.T) {
	r := recent[int]{most: 10}
	made := map[string]int{}
	ask := func(key string) {
		t.Helper()
		v, err := r.get(key, func(key string) (int, error) {
			made[key]++
			return strconv.Atoi(key)
		})
		if want, _ := strconv.Atoi(key); err != nil || v != want {
			t.Fatalf("%s: %d, %v", key, v, err)
		}
	}
	for i := range 1000 {
		ask(strconv.Itoa(i))
		for n := max(0, i-8); n < i; n++ {
			ask(strconv.Itoa(n))
		}
		ask("0")
		if n := len(r.young) + len(r.old); n > 20 || len(r.young) > 10 {
			t.Fatalf("%d are kept", n)
		}
	}
	for key, n := range made {
		if n != 1 {
			t.Errorf("%s is made %d times", key, n)
		}
	}
	ask("500")
	if made["500"] != 2 {
		t.Error("kept without use")
	}
}

func TestRecentKeepsNoFailure(t *testing.T) {
	r := recent[int]{most: 10}
	broken := errors.New("broken")
	if _, err := r.get("a", func(string) (int, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	if v, err := r.get("a", func(string) (int, error) { return 7, nil }); v != 7 || err != nil {
		t.Error(v, err)
	}
}

// Making one may take others, and does not make them wait.
func TestRecentMakesOutsideItsLock(t *testing.T) {
	r := recent[*int]{most: 10}
	first := new(int)
	v, err := r.get("a", func(string) (*int, error) {
		if _, err := r.get("b", func(string) (*int, error) { return new(int), nil }); err != nil {
			t.Error(err)
		}
		// The same one, made meanwhile, is what both get.
		if _, err := r.get("a", func(string) (*int, error) { return first, nil }); err != nil {
			t.Error(err)
		}
		return new(int), nil
	})
	if v != first || err != nil {
		t.Error("two are given out", err)
	}
}

func TestRecentFromManySides(t *testing.T) {
	r := recent[int]{most: 10}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 5000 {
				if v, err := r.get(strconv.Itoa(i*7%33), strconv.Atoi); v != i*7%33 || err != nil {
					t.Error(i, v, err)
				}
			}
		})
	}
	wg.Wait()
}
