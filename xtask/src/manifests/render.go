// Renders templates of a Helm chart as Helm does: with Go's own template engine, and the functions of Helm's that the chart uses. What a
// template asks for and is not there is an error here, where Helm would print nothing.
//
// Input, as JSON on standard input: {"context": …, "templates": {name: text}, "wanted": [name]}. Output: {name: text}.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/template"
)

type input struct {
	Context   map[string]interface{} `json:"context"`
	Templates map[string]string      `json:"templates"`
	Wanted    []string               `json:"wanted"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return err
	}
	all := template.New("chart").Option("missingkey=error")
	all.Funcs(template.FuncMap{
		"include": func(name string, data interface{}) (string, error) {
			var out strings.Builder
			err := all.ExecuteTemplate(&out, name, data)
			return out.String(), err
		},
		"default": func(otherwise, given interface{}) interface{} {
			if given == nil || given == "" || given == false || given == 0.0 {
				return otherwise
			}
			return given
		},
		"fail":    func(why string) (string, error) { return "", errors.New(why) },
		"nindent": func(spaces int, text string) string { return "\n" + indent(spaces, text) },
		"quote":   func(value interface{}) string { return fmt.Sprintf("%q", fmt.Sprint(value)) },
		"toJson": func(value interface{}) (string, error) {
			text, err := json.Marshal(value)
			return string(text), err
		},
	})
	for name, text := range in.Templates {
		if _, err := all.New(name).Parse(text); err != nil {
			return err
		}
	}
	rendered := map[string]string{}
	for _, name := range in.Wanted {
		var out strings.Builder
		if err := all.ExecuteTemplate(&out, name, in.Context); err != nil {
			return err
		}
		rendered[name] = out.String()
	}
	return json.NewEncoder(os.Stdout).Encode(rendered)
}

func indent(spaces int, text string) string {
	margin := strings.Repeat(" ", spaces)
	return margin + strings.ReplaceAll(text, "\n", "\n"+margin)
}
