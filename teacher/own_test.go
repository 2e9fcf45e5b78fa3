package teacher_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/teacher"
	"github.com/opencharacter/opencharacter/teacher/teachertest"
	fake "github.com/opencharacter/opencharacter/testenv/teacher"
)

// TestTeachers: our own teachers keep the rules that a program's must keep.
func TestTeachers(t *testing.T) {
	t.Run("recorded", func(t *testing.T) {
		teachertest.Run(t, teacher.Recorded{"Hello?": "Aye.", "Who are you?": "The captain."}, teachertest.Cases{Prompts: []string{"Hello?", "Who are you?"}})
	})
	t.Run("client", func(t *testing.T) {
		s := fake.Start(t, fake.Options{Key: "sk-very-secret"})
		c, err := teacher.New(teacher.Options{BaseURL: s.URL, Model: "test-model", APIKey: "sk-very-secret", Pause: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		teachertest.Run(t, c, teachertest.Cases{Prompts: []string{"Hello?", "Who are you?"}, Secret: "sk-very-secret"})
		for status, refuses := range map[int]bool{http.StatusBadRequest: true, http.StatusUnprocessableEntity: true, http.StatusUnauthorized: false, http.StatusForbidden: false} {
			s.Then(fake.Status(status))
			_, err := c.Complete(t.Context(), teacher.Request{Messages: []teacher.Message{{Role: "user", Content: "Hello?"}}})
			if err == nil || errors.Is(err, teacher.ErrRefused) != refuses {
				t.Errorf("status %d: %v", status, err)
			}
		}
	})
}
