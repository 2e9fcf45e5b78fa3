package dataset

import (
	"strings"
	"unicode"
)

// Repetition is the share, 0 to 1, of a text that says again what the text said before: the largest of three measures.
//
//   - sentences and lines of three words or more that occurred before, in words over all words;
//   - loops: a passage that follows itself directly ("and then and then and then"), in words, from six repeated words on;
//   - the most frequent three words in a row, from five occurrences on: what a text circles around;
//
// and, for text without spaces, loops of characters. Short cries ("Arr!", "ha ha ha") and a refrain or two do not count much; a model that loops does.
func Repetition(text string) float64 {
	words := splitWords(text)
	score := max(repeatedUnits(text, len(words)), loopedWords(words), topTrigram(words))
	return max(score, loopedRunes([]rune(text)))
}

// splitWords returns the words of a text in small letters, without punctuation. Digits are words: a table of numbers is no repetition.
func splitWords(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '\'' && r != '’' && !unicode.IsMark(r)
	})
}

func repeatedUnits(text string, total int) float64 {
	if total == 0 {
		return 0
	}
	seen := map[string]bool{}
	repeated := 0
	for unit := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(".!?\n。！？…", r) }) {
		words := splitWords(unit)
		if len(words) < 3 {
			continue
		}
		key := strings.Join(words, " ")
		if seen[key] {
			repeated += len(words)
		}
		seen[key] = true
	}
	return float64(repeated) / float64(total)
}

const (
	maxPeriod   = 100    // longest looked-for passage of a loop, in words or characters
	loopWindow  = 10_000 // words or characters looked at: a longer text that loops does so at its start too
	minLoop     = 6      // repeated words
	minRuneLoop = 80     // repeated characters
)

// loopedWords is the longest run in which each word equals the one a period before, over all words. The first passage of the loop does not count.
func loopedWords(words []string) float64 {
	if len(words) > loopWindow {
		words = words[:loopWindow]
	}
	ids := make([]int32, len(words)) // comparing numbers, not strings
	known := map[string]int32{}
	for i, w := range words {
		id, ok := known[w]
		if !ok {
			id = int32(len(known))
			known[w] = id
		}
		ids[i] = id
	}
	best := longestLoop(ids, minLoop, nil)
	if best == 0 {
		return 0
	}
	return float64(best) / float64(len(words))
}

// loopedRunes finds loops in text of which the words can not be told apart. Lines drawn with dashes or spaces do not count.
func loopedRunes(runes []rune) float64 {
	if len(runes) > loopWindow {
		runes = runes[:loopWindow]
	}
	if len(runes) < minRuneLoop {
		return 0
	}
	return float64(longestLoop(runes, minRuneLoop, func(passage []rune) bool {
		for _, r := range passage {
			if unicode.IsLetter(r) || unicode.IsDigit(r) {
				return true
			}
		}
		return false
	})) / float64(len(runes))
}

// longestLoop returns the length of the longest run of x[i] == x[i-period] over all periods. A loop is a passage said at least twice more for single
// elements, once more for longer passages, with at least atLeast repeated elements; counts says whether a passage is of interest (nil: all).
func longestLoop[E comparable](x []E, atLeast int, counts func([]E) bool) int {
	best := 0
	for period := 1; period <= min(maxPeriod, len(x)-1); period++ {
		run := 0
		for i := period; i <= len(x); i++ {
			if i < len(x) && x[i] == x[i-period] {
				run++
				continue
			}
			if run >= max(period, atLeast) && run > best && (counts == nil || counts(x[i-period:i])) {
				best = run
			}
			run = 0
		}
	}
	return best
}

// topTrigram is the share of the words that lie in the most frequent three words in a row.
func topTrigram(words []string) float64 {
	const atLeast, minWords = 5, 30
	if len(words) < minWords {
		return 0
	}
	counts := map[[3]string]int{}
	top := 0
	for i := 0; i+3 <= len(words); i++ {
		g := [3]string{words[i], words[i+1], words[i+2]}
		counts[g]++
		top = max(top, counts[g])
	}
	if top < atLeast {
		return 0
	}
	return min(1, float64(3*top)/float64(len(words)))
}
