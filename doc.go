// Package opencharacter trains a character into a language model, durably.
//
// One run turns a constitution (a character as first-person traits) into a LoRA adapter:
//
//	constitution → prompts → preference pairs → DPO → introspection → SFT → adapter, report
//
// workflows decides the order, activities does the work, workers serves both. store and dataset keep every
// intermediate as Parquet in S3; lm and tensor are the model and its kernels. A program adds all of it to Temporal workers of
// its own with workers.NewPlugin, and teachers, filters, evaluations and stores of its own: see docs/plugins.md. Start reading at
// workflows/character.go, or at docs/start-here.md, which follows one pair from its prompt to the exported adapter.
package opencharacter
