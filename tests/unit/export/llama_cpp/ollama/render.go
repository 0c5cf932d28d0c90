// Reads Modelfiles and renders their TEMPLATE, by the rules of Ollama 0.32.
//
// Stdin is a JSON object: the text of a Modelfile, and lists of messages. Stdout is one too: the
// commands of the file, and for each list the prompt or an error. Ollama reads a Modelfile in
// parser/parser.go and executes a template in template/template.go; this is written after them.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/template"
	"time"
)

type message struct {
	Role    string
	Content string
}

type request struct {
	Modelfile string
	Dialogues [][]message
}

type command struct {
	Name string `json:"name"`
	Args string `json:"args"`
}

type rendered struct {
	Text  string `json:"text"`
	Error string `json:"error"`
}

type answer struct {
	Commands []command  `json:"commands"`
	Prompts  []rendered `json:"prompts"`
	Error    string     `json:"error"`
}

// functions are those that Ollama adds to Go's own.
var functions = template.FuncMap{
	"json": func(value any) string {
		text, _ := json.Marshal(value)
		return string(text)
	},
	"currentDate":      func(...string) string { return time.Now().Format("2006-01-02") },
	"yesterdayDate":    func(...string) string { return "" },
	"toTypeScriptType": func(any) string { return "any" },
}

func main() {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		panic(err)
	}
	told := answer{Prompts: []rendered{}}
	commands, err := parse(asked.Modelfile)
	told.Commands = commands
	if err != nil {
		told.Error = err.Error()
	} else {
		for _, one := range commands {
			if one.Name == "template" {
				told.Prompts, told.Error = renderAll(one.Args, asked.Dialogues)
			}
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(told); err != nil {
		panic(err)
	}
}

func renderAll(source string, dialogues [][]message) ([]rendered, string) {
	prompts := []rendered{}
	parsed, err := template.New("").Option("missingkey=zero").Funcs(functions).Parse(source)
	if err != nil {
		return prompts, err.Error()
	}
	for _, messages := range dialogues {
		var out bytes.Buffer
		system, merged := collate(messages)
		err := parsed.Execute(&out, map[string]any{
			"System": system, "Messages": merged, "Response": "", "Think": false,
		})
		if err != nil {
			prompts = append(prompts, rendered{Error: err.Error()})
		} else {
			prompts = append(prompts, rendered{Text: out.String()})
		}
	}
	return prompts, ""
}

// collate merges neighbours of one role, and collects the system texts.
func collate(messages []message) (string, []*message) {
	var system []string
	var merged []*message
	for _, one := range messages {
		if one.Role == "system" {
			system = append(system, one.Content)
		}
		if last := len(merged) - 1; last >= 0 && merged[last].Role == one.Role {
			merged[last].Content += "\n\n" + one.Content
		} else {
			merged = append(merged, &message{one.Role, one.Content})
		}
	}
	return strings.Join(system, "\n\n"), merged
}

// parse reads names and values. A value ends at a line break, unless it began with quotes that are
// still open there; a character that Go calls unprintable is dropped.
func parse(text string) ([]command, error) {
	commands := []command{}
	var name, word string
	state := "nothing"
	finish := func() bool {
		value, isWhole := unquote(strings.TrimSpace(word))
		if isWhole {
			commands = append(commands, command{name, value})
			state, word = "nothing", ""
		}
		return isWhole
	}
	for _, letter := range text {
		isSpace, isBreak := letter == ' ' || letter == '\t', letter == '\n' || letter == '\r'
		switch {
		case state == "comment" && isBreak:
			state = "nothing"
		case state == "comment", state == "nothing" && (isSpace || isBreak):
		case state == "nothing" && letter == '#':
			state = "comment"
		case state == "nothing":
			state, word = "name", string(letter)
		case state == "name" && isSpace && strings.ToLower(word) == "parameter":
			state, word = "parameter", ""
		case state == "name" && isSpace:
			state, name, word = "value", strings.ToLower(word), ""
			if !isCommand(name) {
				return commands, fmt.Errorf("unknown command %q", name)
			}
		case state == "parameter" && isSpace:
			state, name, word = "value", word, ""
		case state == "name" || state == "parameter":
			if isBreak {
				return commands, fmt.Errorf("%q has no value", word)
			}
			word += string(letter)
		case isBreak && finish():
		case isSpace || isBreak || strconv.IsPrint(letter):
			word += string(letter)
		}
	}
	if state == "value" && !finish() || state == "name" || state == "parameter" {
		return commands, fmt.Errorf("%q does not end", word)
	}
	return commands, nil
}

func isCommand(name string) bool {
	return strings.Contains(" from template system parameter license adapter message ", " "+name+" ")
}

func unquote(text string) (string, bool) {
	if strings.HasPrefix(text, `"""`) {
		if len(text) >= 6 && strings.HasSuffix(text, `"""`) {
			return text[3 : len(text)-3], true
		}
		return "", false
	}
	if strings.HasPrefix(text, `"`) {
		if len(text) >= 2 && strings.HasSuffix(text, `"`) {
			return text[1 : len(text)-1], true
		}
		return "", false
	}
	return text, true
}
