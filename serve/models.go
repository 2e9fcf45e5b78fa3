package serve

import "net/http"

func (s *Server) model(name string) map[string]any {
	return map[string]any{"id": name, "object": "model", "created": s.created, "owned_by": "opencharacter", "context_length": s.o.Context}
}

func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) *apiError {
	list := make([]any, len(s.o.Models))
	for i, m := range s.o.Models {
		list[i] = s.model(m.Name)
	}
	s.write(w, http.StatusOK, map[string]any{"object": "list", "data": list})
	return nil
}

func (s *Server) showModel(w http.ResponseWriter, name string) *apiError {
	if _, ok := s.models[name]; !ok {
		return s.noModel(name)
	}
	s.write(w, http.StatusOK, s.model(name))
	return nil
}

// Health is the state of the server, as /healthz shows it.
type Health struct {
	Status     string `json:"status"`      // ok, stopping or failed
	Active     int    `json:"active"`      // answers in work
	Waiting    int    `json:"waiting"`     // answers that wait for their turn
	CachePages int    `json:"cache_pages"` // pages of keys and values in use
	CacheBytes int64  `json:"cache_bytes"` // their size
}

// Health tells the state of the server.
func (s *Server) Health() Health {
	active, waiting, err := s.engine.counts()
	h := Health{Status: "ok", Active: active, Waiting: waiting}
	if s.draining.Load() {
		h.Status = "stopping"
	} else if err != nil {
		h.Status = "failed"
	}
	h.CachePages = s.engine.usedPages()
	h.CacheBytes = int64(h.CachePages) * s.o.Weights.PageBytes()
	return h
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) *apiError {
	h, status := s.Health(), http.StatusOK
	if h.Status != "ok" {
		status = http.StatusServiceUnavailable
	}
	s.write(w, status, h)
	return nil
}
