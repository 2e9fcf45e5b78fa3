package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// ownTeacher stands before the name of a teacher that a program has added to its workers: "own:parrot".
const ownTeacher = "own:"

var (
	ownName    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	ownVersion = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// maxOwn is how many filters or evaluations of its own a part of a run may have.
const maxOwn = 16

// OwnTeacher is the name of the teacher where it is one that a program has added to its workers.
func OwnTeacher(teacher string) (name string, ok bool) { return strings.CutPrefix(teacher, ownTeacher) }

// CheckOwn refuses names and versions that a worker's own teacher, filter or evaluation cannot have. kind says which.
func CheckOwn(kind, name, version string) error {
	if !ownName.MatchString(name) {
		return fmt.Errorf("%s %s: its name must be small letters, digits and dashes, beginning with a letter, at most 63", kind, quoted(name))
	}
	if !ownVersion.MatchString(version) {
		return fmt.Errorf("%s %s: its version %s must be letters, digits, dots, dashes and underscores, at most 64: it tells results of one version from those of another", kind, name, quoted(version))
	}
	return nil
}

// checkOwnNames checks a list of names in a spec.
func checkOwnNames(field string, names []string, bad func(field string, value any, want string)) {
	if len(names) > maxOwn {
		bad(field, len(names), fmt.Sprintf("at most %d names", maxOwn))
	}
	for i, n := range names {
		if !ownName.MatchString(n) {
			bad(field, quoted(n), "names of the workers' own: small letters, digits and dashes")
		} else if slices.Contains(names[:i], n) {
			bad(field, quoted(n)+" twice", "each name once")
		}
	}
}
