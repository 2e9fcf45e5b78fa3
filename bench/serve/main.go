// Command serve compares the server with the batch generator on the same rows in the same process: what many clients
// cost. Rounds of both take turns; the figures are medians, in tokens of answers a second of wall time. It also
// checks that both give the same texts, and prints one JSON line at the end.
//
//	go run ./bench/serve -model SmolLM2-135M-Instruct.Q4_1.gguf
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/serve"
	"github.com/opencharacter/opencharacter/tensor"
)

type options struct {
	model, weights                      string
	clients, rows, tokens, rank, rounds int
	whole                               bool
}

func main() {
	var o options
	flag.StringVar(&o.model, "model", "", "GGUF file or Hugging Face folder of a chat model")
	flag.StringVar(&o.weights, "weights", "", "bf16 or quantized")
	flag.IntVar(&o.clients, "clients", 16, "clients, each with one connection")
	flag.IntVar(&o.rows, "rows", 64, "rows; each client asks for the next one as soon as it has its answer")
	flag.IntVar(&o.tokens, "tokens", 64, "most tokens of an answer")
	flag.IntVar(&o.rank, "rank", 0, "rank of an adapter on the model; 0 is none")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each side, after one to warm up")
	flag.BoolVar(&o.whole, "whole", false, "ask for whole answers instead of streams")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

// result is the JSON line.
type result struct {
	Variant   string    `json:"variant"`
	Clients   int       `json:"clients"`
	Rows      int       `json:"rows"`
	Tokens    int       `json:"tokens"` // of all answers of a round
	Generator []float64 `json:"generator_tokens_per_s"`
	Server    []float64 `json:"server_tokens_per_s"`
	Ratio     float64   `json:"ratio"` // of the medians
}

func run(o options) error {
	if o.model == "" || o.clients < 1 || o.rows < 1 || o.tokens < 1 || o.rounds < 1 || o.rank < 0 {
		return errors.New("give -model and counts of at least 1")
	}
	m, err := activities.LoadModel(o.model, o.weights, hub.Options{})
	if err != nil {
		return err
	}
	var stack []*transformer.Adapter
	if o.rank > 0 {
		stack = append(stack, transformer.NewAdapter(m.Config, o.rank, float64(o.rank), 1))
	}
	s, err := serve.New(serve.Options{Weights: m.Model, Tokens: m.Tokens, Chat: m.Chat, Models: []serve.Model{{Name: "model", Stack: stack}}, Rows: o.clients})
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	h := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = h.Serve(l) }() // ends with Close
	defer func() { _ = h.Close() }()
	url := "http://" + l.Addr().String() + "/v1/chat/completions"

	r := result{Variant: tensor.VariantOf(m.Compute()), Clients: o.clients, Rows: o.rows}
	for round := range o.rounds + 1 {
		seed, prompts := uint64(round+1), prompts(o.rows, round)
		want, seconds, tokens, err := generate(o, m, stack, prompts, seed)
		if err != nil {
			return err
		}
		got, took, err := ask(o, url, prompts, seed)
		if err != nil {
			return err
		}
		if !slices.Equal(got, want) {
			return errors.New("the server's texts are not the generator's")
		}
		fmt.Printf("round %d: %d tokens, generator %.1f tokens/s, server %.1f tokens/s, ratio %.3f\n", round, tokens, float64(tokens)/seconds, float64(tokens)/took, seconds/took)
		if round > 0 {
			r.Tokens = tokens
			r.Generator, r.Server = append(r.Generator, float64(tokens)/seconds), append(r.Server, float64(tokens)/took)
		}
	}
	r.Ratio = median(r.Server) / median(r.Generator)
	return json.NewEncoder(os.Stdout).Encode(r)
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

// prompts are short questions of different lengths. Each round has its own, so that nothing but the system prompt is
// found in the server's cache.
func prompts(n, round int) []string {
	words := strings.Fields("the sea a ship storm harbour captain map night wind island rope anchor crew song whale lantern tide")
	r := rand.New(rand.NewPCG(1, uint64(round)))
	out := make([]string, n)
	for i := range out {
		var b strings.Builder
		fmt.Fprintf(&b, "%d, story %d: tell me about", round, i)
		for range 4 + r.IntN(40) {
			b.WriteString(" " + words[r.IntN(len(words))])
		}
		out[i] = b.String() + "."
	}
	return out
}

func generate(o options, m *activities.Loaded, stack []*transformer.Adapter, prompts []string, seed uint64) (texts []string, seconds float64, tokens int, err error) {
	start := time.Now()
	reqs := make([]sample.Request, len(prompts))
	for i, p := range prompts {
		ids, err := m.Chat.Prompt([]chat.Message{{Role: "user", Content: p}})
		if err != nil {
			return nil, 0, 0, err
		}
		// Every client asks for one answer at a time, which has key 0.
		reqs[i] = sample.Request{Prompt: ids, Params: sample.Params{Temperature: .8, TopP: .95, MaxTokens: o.tokens, Seed: seed<<32 + uint64(i), StopTokens: m.Chat.EndTokens()}}
	}
	texts = make([]string, len(prompts))
	err = sample.Generate(context.Background(), m.Model, stack, reqs, sample.Options{MaxRows: o.clients}, func(i int, r sample.Result) error {
		texts[i] = m.Text(r)
		tokens += len(r.Tokens)
		return nil
	})
	return texts, time.Since(start).Seconds(), tokens, err
}

// ask lets the clients work through the rows.
func ask(o options, url string, prompts []string, seed uint64) (texts []string, seconds float64, err error) {
	texts = make([]string, len(prompts))
	errs := make([]error, o.clients)
	next := make(chan int, len(prompts))
	for i := range prompts {
		next <- i
	}
	close(next)
	start := time.Now()
	var g sync.WaitGroup
	for c := range o.clients {
		g.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for i := range next {
				if texts[i], errs[c] = answer(client, o, url, prompts[i], seed<<32+uint64(i)); errs[c] != nil {
					return
				}
			}
		})
	}
	g.Wait()
	return texts, time.Since(start).Seconds(), errors.Join(errs...)
}

func answer(client *http.Client, o options, url, prompt string, seed uint64) (string, error) {
	body, err := json.Marshal(map[string]any{"model": "model", "messages": []map[string]string{{"role": "user", "content": prompt}}, "temperature": .8, "top_p": .95,
		"max_tokens": o.tokens, "seed": seed, "stream": !o.whole})
	if err != nil {
		return "", err
	}
	resp, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	type piece struct {
		Error   json.RawMessage
		Choices []struct{ Message, Delta struct{ Content string } }
	}
	var text strings.Builder
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		data, ok := strings.CutPrefix(sc.Text(), "data: ")
		if data == "" || data == "[DONE]" || !ok && !o.whole {
			continue
		}
		var p piece
		if err := json.Unmarshal([]byte(data), &p); err != nil {
			return "", err
		}
		if p.Error != nil {
			return "", fmt.Errorf("status %d: %s", resp.StatusCode, p.Error)
		}
		for _, c := range p.Choices {
			text.WriteString(c.Message.Content + c.Delta.Content)
		}
	}
	return text.String(), sc.Err()
}
