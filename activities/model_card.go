package activities

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencharacter/opencharacter/lm/hub"
)

// modelCard is the README.md of a folder of FormatSafetensors and so on, with the front matter that the model hub reads.
// It carries no clock: equal runs have equal cards.
func modelCard(r Record, p Plan, base hub.Model, format string) ([]byte, error) {
	info, err := hub.Inspect(base.Path)
	if err != nil {
		return nil, err
	}
	repo, license := "", info.License
	for _, e := range hub.Known() {
		if e.SHA256 == base.SHA256 {
			repo, license = e.Repo, e.License
		}
	}
	var b strings.Builder
	text := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	text("---\n")
	if license != "" {
		text("license: %s\n", quoted(strings.ToLower(license)))
	}
	if repo != "" {
		text("base_model: %s\nbase_model_relation: %s\n", quoted(repo), relation(format))
	}
	text("library_name: %s\npipeline_tag: text-generation\ntags:\n- character-training\n- dpo\n- lora\n", library(format))
	if library(format) == "gguf" {
		text("- gguf\n")
	}
	text("---\n\n# %s\n\n", plainLine(p.Name))
	text("A character that was trained into a language model: it is the model's default, and no prompt describes it.\n\n")
	text("| | |\n|---|---|\n| base model | `%s` (%s, sha256 `%s`) |\n", plainLine(p.Model.Name), p.Model.Architecture, base.SHA256)
	text("| constitution | `%s` (sha256 `%s`) |\n", plainLine(p.Name), p.Constitution.SHA256)
	text("| preset, seed | %s, %d |\n| kernels | %s |\n", plainLine(p.Spec.Preset), p.Spec.Seed, plainLine(p.Variant))
	text("| adapter | DPO (rank %d) + %g x SFT (rank %d) |\n", p.Spec.DPO.Rank, p.Spec.Export.SFTWeight, p.Spec.SFT.Rank)
	if st, ok := r.Stage(KindPreferences); ok {
		text("| preference pairs | %d |\n", st.Kept)
	}
	if st, ok := r.Stage(KindIntrospection); ok {
		text("| introspection rows | %d |\n", st.Kept)
	}
	text("\n## Measurements\n\n")
	measured(text, r)
	text("## Use\n\n%s\n", usage(format, p.Name))
	text("## Licence\n\n")
	if license != "" {
		text("The base model is under %s, and these weights are made of it: its terms go on. ", plainLine(license))
	} else {
		text("The base model's files name no licence. These weights are made of it, so its terms go on: look them up before you pass them on. ")
	}
	text("What the teacher's terms say about training on its answers holds too.\n\n## Spec\n\n")
	spec, err := json.MarshalIndent(p.Spec, "", "  ")
	if err != nil {
		return nil, err
	}
	text("```json\n%s\n```\n", spec)
	return []byte(b.String()), nil
}

// measured tells what the evaluation found.
func measured(text func(string, ...any), r Record) {
	st, ok := r.Stage(KindEvaluation)
	if !ok {
		text("The run was not evaluated.\n\n")
		return
	}
	v := st.Values
	if v["held_out_rows"] == 0 {
		text("The character has no recorded answers to hold out, so nothing was measured on unseen ones.\n\n")
		return
	}
	text("Mean log-prob a token of %.0f unseen answers in character, nats:\n\n", v["held_out_rows"])
	text("| model | log-prob | gain |\n|---|---|---|\n| base | %.3f | |\n", v["held_out_base"])
	text("| base, constitution in its prompt | %.3f | %+.3f |\n", v["held_out_constitution"], v["gain_constitution"])
	text("| after DPO | %.3f | %+.3f |\n| final | %.3f | %+.3f |\n\n", v["held_out_dpo"], v["gain_dpo"], v["held_out_character"], v["gain_character"])
	if index, ok := v["index_character"]; ok {
		text("Internalisation index %.2f: the gain divided by what the whole constitution in the prompt gains the base.\n\n", index)
	}
	text("Measured on the adapters in float32. A merged model in bf16 or q8_0 has every weight rounded once, which takes something away from a small adapter; float32 and the adapters themselves lose nothing.\n\n")
}

func relation(format string) string {
	if format == FormatLoRA {
		return "adapter"
	}
	return "finetune"
}

func library(format string) string {
	if format == FormatSafetensors || format == FormatF32 {
		return "transformers"
	}
	return "gguf"
}

// usage has the lines that open the folder in its tool.
func usage(format, name string) string {
	llama := func(file, more string) string {
		return "```python\nfrom llama_cpp import Llama\n\nmodel = Llama(" + file + more + ")\n" +
			"answer = model.create_chat_completion([{\"role\": \"user\", \"content\": \"Who are you?\"}], temperature=0)\n" +
			"print(answer[\"choices\"][0][\"message\"][\"content\"])\n```\n"
	}
	switch format {
	case FormatSafetensors, FormatF32:
		return "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n" +
			"model = AutoModelForCausalLM.from_pretrained(\"path/to/this/folder\")\ntokenizer = AutoTokenizer.from_pretrained(\"path/to/this/folder\")\n" +
			"prompt = tokenizer.apply_chat_template([{\"role\": \"user\", \"content\": \"Who are you?\"}], add_generation_prompt=True, return_tensors=\"pt\", return_dict=True)\n" +
			"answer = model.generate(**prompt, max_new_tokens=100)\nprint(tokenizer.decode(answer[0][prompt[\"input_ids\"].shape[1]:], skip_special_tokens=True))\n```\n"
	case FormatLoRA:
		return "`" + name + "-lora.gguf` is the whole character, `" + name + "-dpo-lora.gguf` what it was after DPO. Either goes on a GGUF file of the base model, best the one of the table above:\n\n" +
			llama("\"base.gguf\"", ", lora_path=\""+name+"-lora.gguf\"") + "\n`llama-cli -m base.gguf --lora " + name + "-lora.gguf`\n"
	}
	file := name + "-" + strings.TrimPrefix(format, "gguf-") + ".gguf"
	return llama("\""+file+"\"", "") + "\n`llama-cli -m " + file + "`\n"
}

func plainLine(s string) string { return strings.Join(strings.Fields(strings.ToValidUTF8(s, "")), " ") }

// quoted is a double-quoted YAML string, which takes every JSON escape.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(plainLine(s)) + `"`
}
