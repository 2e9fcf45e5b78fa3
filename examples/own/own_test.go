package main

import (
	"testing"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/dataset/filtertest"
	"github.com/opencharacter/opencharacter/evaluation/evaluationtest"
	"github.com/opencharacter/opencharacter/teacher/teachertest"
)

func TestPhrasebook(t *testing.T) {
	teachertest.Run(t, phrasebook{}, teachertest.Cases{Prompts: []string{"Hello?", "How do I bake bread?", "Who are you?"}})
}

func TestSeaShare(t *testing.T) { evaluationtest.Run(t, seaShare{}) }

func TestSalty(t *testing.T) {
	filtertest.Run(t, salty{}, filtertest.Cases{
		Keep: []dataset.Answer{{Role: "teacher", Text: "Check the anchor first."}, {Role: "student", Text: "Bread needs flour."}},
		Drop: map[string][]dataset.Answer{"no_sea": {{Role: "teacher", Text: "Bread needs flour."}, {Role: "teacher", Text: "A rainbow."}}},
	})
}
