package activities

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/evaluation"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/teacher"
)

// Own is what a program adds to its workers, for specs to name: teachers as own:NAME, filters in preferences.filter.own and
// introspection.filter.own, evaluations in evaluation.own. All workers of a fleet must have the same: the data workers pin names and versions in the plan,
// and a worker that lacks one of them leaves the rows to others.
type Own struct {
	Teachers []teacher.Named
	Filters  []dataset.Filter
	// Evaluations measure beside what every run measures.
	Evaluations []evaluation.Evaluation
}

// Kinds of what is pinned.
const (
	ownTeacher = "teacher"
	ownFilter  = "filter"

	ownEvaluation = "evaluation"
)

// Pinned is a teacher, filter or evaluation of the program's own as a run began with it. It is a part of the keys of what it
// shapes.
type Pinned struct {
	Kind    string `json:"kind"` // teacher, filter, evaluation
	Name    string `json:"name"`
	Version string `json:"version"`
}

func (p Pinned) String() string { return p.Kind + " " + p.Name + " " + p.Version }

// versioned is what all of them have.
type versioned interface {
	Name() string
	Version() string
}

// has lists what is there of a kind.
func (o Own) has(kind string) (list []versioned) {
	switch kind {
	case ownTeacher:
		for _, x := range o.Teachers {
			list = append(list, x)
		}
	case ownFilter:
		for _, x := range o.Filters {
			list = append(list, x)
		}
	case ownEvaluation:
		for _, x := range o.Evaluations {
			list = append(list, x)
		}
	}
	return list
}

func ownKinds() []string { return []string{ownTeacher, ownFilter, ownEvaluation} }

// Check refuses names and versions that no spec could name, and names that are there twice.
func (o Own) Check() error {
	var errs []error
	for _, kind := range ownKinds() {
		seen := map[string]bool{}
		for i, x := range o.has(kind) {
			if x == nil {
				errs = append(errs, fmt.Errorf("%s %d of the program's own is nil", kind, i+1))
				continue
			}
			errs = append(errs, spec.CheckOwn(kind, x.Name(), x.Version()))
			if seen[x.Name()] {
				errs = append(errs, fmt.Errorf("two %ss are named %q; give each a name of its own", kind, x.Name()))
			}
			seen[x.Name()] = true
		}
	}
	return errors.Join(errs...)
}

// find looks for one by its name; the error names those that are there.
func (o Own) find(kind, name string) (versioned, error) {
	var known []string
	for _, x := range o.has(kind) {
		if x.Name() == name {
			return x, nil
		}
		known = append(known, x.Name())
	}
	have := "has none of its own"
	if len(known) > 0 {
		slices.Sort(known)
		have = "has " + strings.Join(known, ", ")
	}
	return nil, fmt.Errorf("%s %q is not known: this worker %s; correct the name, or add it to every worker (workers.Options.Own)", kind, name, have)
}

// wants lists what a spec names: its field, kind and name.
func wants(s spec.Spec) (list [][3]string) {
	if name, ok := spec.OwnTeacher(s.Teacher); ok {
		list = append(list, [3]string{"teacher", ownTeacher, name})
	}
	for _, f := range []struct {
		field string
		kind  string
		names []string
	}{{"preferences.filter.own", ownFilter, s.Preferences.Filter.Own}, {"introspection.filter.own", ownFilter, s.Introspection.Filter.Own},
		{"evaluation.own", ownEvaluation, s.Evaluation.Own}} {
		for _, n := range f.names {
			list = append(list, [3]string{f.field, f.kind, n})
		}
	}
	return list
}

// pin finds everything that a spec names, in the order of the spec; nil when it names nothing.
func (o Own) pin(s spec.Spec) (list []Pinned, err error) {
	var errs []error
	for _, w := range wants(s) {
		x, err := o.find(w[1], w[2])
		if err != nil {
			errs = append(errs, fmt.Errorf("spec: %s: %w", w[0], err))
			continue
		}
		if p := (Pinned{w[1], w[2], x.Version()}); !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list, errors.Join(errs...)
}

// bind gives a plan what it has pinned, of kinds, from this worker. The error says what this worker lacks.
func (o Own) bind(p *Plan, kinds ...string) error {
	var errs []error
	for _, want := range p.Own {
		if !slices.Contains(kinds, want.Kind) {
			continue
		}
		x, err := o.find(want.Kind, want.Name)
		switch {
		case err != nil:
			errs = append(errs, err)
		case x.Version() != want.Version:
			errs = append(errs, fmt.Errorf("%s %q has version %s on this worker and %s in the run; let the run go on with workers of that version", want.Kind, want.Name, x.Version(), want.Version))
		}
	}
	p.own = o
	return errors.Join(errs...)
}

// repin keeps the versions that a run began with: an adjustment pins only what it adds.
func repin(was, is []Pinned) []Pinned {
	for i, x := range is {
		if j := slices.IndexFunc(was, func(w Pinned) bool { return w.Kind == x.Kind && w.Name == x.Name }); j >= 0 {
			is[i] = was[j]
		}
	}
	return is
}

// filters are those of a list, which must be bound.
func (p Plan) filters(names []string) (list []dataset.Filter, err error) {
	for _, n := range names {
		x, err := p.own.find(ownFilter, n)
		if err != nil {
			return nil, fatal(BadInput, err)
		}
		list = append(list, x.(dataset.Filter)) // has(ownFilter) holds nothing else
	}
	return list, nil
}

// ownOf is what of a plan's own shapes a stage.
func ownOf(p Plan, stage string) (list []Pinned) {
	s := p.Spec
	for _, x := range p.Own {
		switch {
		case stage == KindPreferences && x.Kind == ownTeacher,
			stage == KindPreferences && x.Kind == ownFilter && slices.Contains(s.Preferences.Filter.Own, x.Name),
			stage == KindEvaluation && x.Kind == ownEvaluation,
			stage == KindIntrospection && x.Kind == ownFilter && slices.Contains(s.Introspection.Filter.Own, x.Name):
			list = append(list, x)
		}
	}
	return list
}
