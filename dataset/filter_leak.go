package dataset

import "regexp"

// Patterns that show a model going on as a dialogue: its own continuation of both sides.
var contamination = []*regexp.Regexp{
	// a speaker's name at the start of a line
	regexp.MustCompile(`(?im)^[\s>*_#]*(?:user|assistant|human|ai assistant|speaker [ab12])[*_]*\s*:`),
	// the same in the middle of a line, as the templates write it
	regexp.MustCompile(`(?:^|\s)(?:User|Assistant|USER|ASSISTANT): `),
	// control tokens: <|im_start|>, <|eot_id|>, <｜User｜>, [INST], <<SYS>>, <start_of_turn>, <bos>
	regexp.MustCompile(`<[|｜][^\s<>|｜]{1,40}[|｜]>`),
	regexp.MustCompile(`\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|</s>`),
	// headings of instruction formats
	regexp.MustCompile(`(?m)^###\s*(?:Instruction|Response|Input|User|Assistant|Human)\s*:`),
}

func contaminated(text string) bool { return matchesAny(contamination, text) }

const (
	products = `(?:Qwen|DeepSeek|Claude|GPT(?:-?\d\w*)?|ChatGPT|Llama|LLaMA|Gemma|Gemini|Bard|Mistral|Mixtral|SmolLM2?|ChatGLM|GLM(?:-?\d\S*)?|Grok|Copilot|Kimi|Tongyi Qianwen)`
	labs     = `(?:OpenAI|Anthropic|Google|DeepMind|Meta(?: AI)?|Alibaba(?: Cloud)?|DeepSeek|Mistral(?: AI)?|Hugging ?Face|Microsoft|Zhipu(?: AI)?|Moonshot(?: AI)?|xAI|Z\.ai)`
)

// Patterns that show the model behind the character, or the instructions behind the answer. Only what the speaker says of himself counts: an answer ABOUT a
// language model or a company is a good answer.
var identityLeak = []*regexp.Regexp{
	regexp.MustCompile(`(?i)\bas an? (?:AI|artificial intelligence|large language|language)(?:[ -](?:language|text))?[ -](?:model|assistant|chatbot|system|program)\b`),
	regexp.MustCompile(`(?i)\bI(?:'|’)?(?:m| am| was)(?: just| only| merely| simply| actually| really|,? after all,?)* an? (?:large |helpful |virtual )?(?:AI |artificial intelligence )?(?:language model|AI (?:assistant|chatbot|program))\b`),
	// names as they are written: a llama, a gemini and a mistral may well be something else
	regexp.MustCompile(`\b(?:I am|I['’]m|[Mm]y name is|[Cc]all me) (?:called |named |also )?` + products + `\b`),
	regexp.MustCompile(`\bI(?:['’]m| am| was|['’]ve been| have been)\b[^.!?\n]{0,40}\b(?:created|trained|developed|built|made|designed|programmed)\b[^.!?\n]{0,20}\bby\b[^.!?\n]{0,20}\b` + labs + `\b`),
	regexp.MustCompile(`(?i)\bmy (?:knowledge cut-?off|training data|pre-?training|fine-?tuning)\b`),
	regexp.MustCompile(`(?i)\bmy (?:system prompt|constitution)\b`),
	regexp.MustCompile(`(?i)\b(?:the|this) system prompt\b[^.!?\n]{0,40}\b(?:tells|told|says|instructs|asks)\b`),
	regexp.MustCompile(`(?i)\b(?:as (?:instructed|directed|required|specified|described) (?:by|in)|(?:according|true) to|in accordance with|per) (?:my|the) (?:constitution|system prompt|instructions|character (?:description|sheet|traits)|persona)\b`),
	regexp.MustCompile(`(?i)\b(?:stay|staying|remain|remaining|keep|keeping) in character\b`),
	regexp.MustCompile(`(?i)\b(?:I am|I['’]m) (?:role-?playing|pretending to be|playing the (?:role|part|character))\b`),
}

func leaksIdentity(text string) bool { return matchesAny(identityLeak, text) }

func matchesAny(patterns []*regexp.Regexp, text string) bool {
	for _, p := range patterns {
		if p.MatchString(text) {
			return true
		}
	}
	return false
}
