// Package train teaches a LoRA adapter: direct preference optimisation (DPO) on
// pairs and supervised fine-tuning (SFT) on rows, with AdamW, a learning-rate
// schedule, clipping and exact checkpoints.
//
// It works on token ids with a mask of the tokens to learn. It knows nothing of
// text, files, data sets or storage: a checkpoint is a map of file contents.
//
// A step packs its rows, in order and never split, into micro-batches of bounded
// size. Neither their size nor the number of threads changes a bit of the result,
// and neither does stopping: a trainer restored from Save continues exactly where
// the saved one stood.
//
// Start reading at trainer.go (one step), then dpo.go and sft.go (the losses).
package train
