package constitution

// explanations say of each finding why it matters and what to write instead.
var explanations = map[string][2]string{
	"few_traits":              {"few traits leave most questions without anything in character to say, and the model learns a mannerism instead of a character", "add traits for what it values, what it likes, how it speaks, and how it treats people"},
	"many_traits":             {"a teacher that must hold many rules follows the first few", "join traits that say the same, and drop those no answer will show"},
	"no_description":          {"people choose a character by it; no model sees it", "description: A cheerful lighthouse keeper who sees weather in everything."},
	"no_short":                {"small local teachers get the short form alone; without one the first traits stand in for it, which they follow badly", "short: |\n  You are Ida, a cheerful lighthouse keeper. You compare everything with weather."},
	"short_not_second_person": {"it is the system prompt of a small teacher, which takes \"You are\" as being about itself, and \"I am\" as being about you", "short: |\n  You are ... You ..."},
	"long_short":              {"a model of a few hundred million parameters keeps the beginning of a long prompt and loses the rest", "two or three sentences: who it is, how it speaks, one habit"},
	"not_first_person":        {"traits are said in the character's own voice; a sentence about somebody else is read as a topic", "I compare moods and problems with weather."},
	"long_trait":              {"of a long trait one half is forgotten", "one clear sentence; make two traits of two thoughts"},
	"few_questions":           {"each question becomes training prompts; with one or two the trait is learned as the answer to those", "five everyday questions that touch the trait without naming it"},
	"no_questions":            {"the questions are what brings a trait out in the training data", "under each trait: questions: [\"What did you do today?\", ...]"},
	"no_examples":             {"a teacher copies a voice from examples better than from any description", "examples:\n  - prompt: How are you?\n    response: Fair winds, friend! The lamp is clean, and so is my mood."},
	"few_examples":            {"three examples show what stays the same between answers", "one example of small talk, one of help, one plain fact"},
	"long_example":            {"the teacher reads it before every single answer, and answers at that length", "two or three sentences"},
	"control_text":            {"it is taken as plain text, which is hardly what was meant", "leave the marks of chat templates out"},
	"repeated_question":       {"it is asked once, for the first trait alone", "ask something else there, or remove it"},
	"example_is_question":     {"the teacher would copy its own example word by word, and that pair teaches nothing", "ask another question in the example"},
}

// Why says why the finding matters, in a sentence without capital letter and full stop.
func (f Finding) Why() string { return explanations[f.Code][0] }

// Instead shows what to write instead; it may have several lines.
func (f Finding) Instead() string { return explanations[f.Code][1] }
