// Package transformer runs decoder-only language models of the Llama, Qwen3 and
// Gemma 3 families: loading, the forward pass, the backward pass into LoRA adapters,
// and incremental decoding with a paged key/value cache.
//
// It works on token ids. It knows nothing of text, chat templates, losses,
// optimisers or sampling: those are lm/tokenizer, lm/chat, lm/train and
// lm/sample.
//
// One forward function serves training, reference scores and sampling, and every
// kernel below it keeps one summation order per output element. So a row's
// numbers depend on that row, the weights and the adapters only: not on the rows
// packed beside it, on how a prompt was cut into chunks, or on the number of
// threads. LogProbs and Extend agree bit for bit.
//
// Start reading at config.go (what a model is), then block.go (one layer
// forward), backward.go (the same layer backward) and linear.go (a projection
// with its stack of adapters).
package transformer
