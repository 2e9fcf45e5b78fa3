package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// unit is a line of the work log that workers write: something that an engine has done.
type unit struct {
	At       time.Time `json:"at"`
	Workflow string    `json:"workflow"`
	Activity string    `json:"activity"`
	Attempt  int       `json:"attempt"`
	Kind     string    `json:"kind"`
	Unit     string    `json:"unit"`
}

func (u unit) key() string { return u.Workflow + "|" + u.Kind + "|" + u.Unit }

// workLog reads a growing work log.
type workLog struct {
	path  string
	at    int64 // bytes read, whole lines
	units []unit
	done  map[string]bool
}

func newWorkLog(path string) *workLog { return &workLog{path: path, done: map[string]bool{}} }

// read takes in what is new.
func (w *workLog) read() error {
	f, err := os.Open(w.path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("chaos: work log: %w", err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("chaos: work log: %w", err)
	}
	b := make([]byte, max(0, st.Size()-w.at))
	n, _ := f.ReadAt(b, w.at) // it only grows
	b = b[:n]
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	w.at += int64(len(b))
	for line := range bytes.Lines(b) {
		var u unit
		if err := json.Unmarshal(line, &u); err != nil {
			return fmt.Errorf("chaos: work log: %w: %s", err, line)
		}
		w.units = append(w.units, u)
		w.done[u.key()] = true
	}
	return nil
}

// stage is the stage of the newest unit.
func (w *workLog) stage() string {
	if len(w.units) == 0 {
		return "start"
	}
	return w.units[len(w.units)-1].Kind
}

// biggest is the number of units of the activity that has most: a whole chunk or segment.
func (w *workLog) biggest() int {
	count, most := map[string]int{}, 0
	for _, u := range w.units {
		k := u.Workflow + "|" + u.Activity
		count[k]++
		most = max(most, count[k])
	}
	return most
}

// again is work that was done a second time.
type again struct {
	units   int
	seconds float64 // from when the first of it was done before to the fault
}

// redone attributes every unit that was done twice to the last fault before the second time. Index len(faults) has those
// that no fault explains.
func (w *workLog) redone(faults []time.Time) []again {
	out := make([]again, len(faults)+1)
	first := map[string]time.Time{}
	for _, u := range w.units {
		before, twice := first[u.key()]
		first[u.key()] = u.At
		if !twice {
			continue
		}
		i := len(faults) - 1
		for ; i >= 0 && faults[i].After(u.At); i-- {
		}
		if i < 0 {
			out[len(faults)].units++
			continue
		}
		out[i].units++
		out[i].seconds = max(out[i].seconds, faults[i].Sub(before).Seconds())
	}
	return out
}

// firstAfter is when the first unit after t was done; ok is false when there is none.
func (w *workLog) firstAfter(t time.Time) (time.Time, bool) {
	for _, u := range w.units {
		if u.At.After(t) {
			return u.At, true
		}
	}
	return time.Time{}, false
}
