package evaluation_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/evaluation"
	"github.com/opencharacter/opencharacter/evaluation/evaluationtest"
)

func TestStyle(t *testing.T) { evaluationtest.Run(t, evaluation.Style{}) }

func TestCheck(t *testing.T) {
	many := map[string]float64{}
	for i := range evaluation.MaxValues + 1 {
		many[fmt.Sprintf("v%d", i)] = 1
	}
	for _, bad := range []map[string]float64{{"x": math.NaN()}, {"x": math.Inf(-1)}, {"X": 1}, {"": 1}, {"a b": 1}, {strings.Repeat("a", 65): 1}, many} {
		if evaluation.Check(bad) == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	if err := evaluation.Check(map[string]float64{"chars": 1, "a_1": -2}); err != nil {
		t.Error(err)
	}
}

func ExampleStyle() {
	m := &evaluationtest.Model{Name: "base", Checks: []string{"Hello!"}, Says: func(string) string { return "Ahoy there." }}
	values, err := evaluation.Style{}.Measure(context.Background(), m)
	fmt.Println(values, err)
	// Output: map[chars:11 finished:1] <nil>
}
