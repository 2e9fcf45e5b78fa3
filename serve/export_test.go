package serve

import (
	"sync"

	"github.com/opencharacter/opencharacter/lm/sample"
)

// Hold keeps the engine inside a step, with one row in work, until release.
func (s *Server) Hold() (release func()) {
	held, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	err := s.engine.submit([]sample.Row{{
		Request: sample.Request{Prompt: []int32{1}, Params: sample.Params{MaxTokens: 1}},
		Token:   func(sample.Token) bool { close(held); <-free; return false },
		End:     func(string, error) {},
	}})
	if err != nil {
		panic(err)
	}
	<-held
	return func() { once.Do(func() { close(free) }) }
}

// InFlight counts the requests in their handlers.
func (s *Server) InFlight() int64 { return s.inFlight.Load() }
