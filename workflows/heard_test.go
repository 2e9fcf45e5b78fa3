package workflows

import "testing"

// TestHeard: a day of one-minute segments costs the parent few signals (law 4), and a short stage loses none.
func TestHeard(t *testing.T) {
	n := 0
	for i := 1; i <= 24*60; i++ {
		if heard(i) {
			n++
		} else if i <= 40 {
			t.Errorf("report %d is not heard", i)
		}
	}
	// Five stages, and up to four events a signal.
	if n > 90 || 5*4*n > 2000 {
		t.Errorf("%d signals", n)
	}
}
