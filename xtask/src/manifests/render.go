// Renders templates of a Helm chart as Helm does: with Go's own template engine, and the functions of Helm's that the chart uses. What a
// template asks for and is not there is an error here, where Helm would print nothing.
//
// The values must be as the chart's schema has them, as for Helm; a word of the schema that is not known here is an error.
//
// Input, as JSON on standard input: {"context": …, "schema": …, "templates": {name: text}, "wanted": [name]}. Output: {name: text}.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"text/template"
)

type input struct {
	Context   map[string]interface{} `json:"context"`
	Schema    map[string]interface{} `json:"schema"`
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
	if err := check("values", in.Context["Values"], in.Schema, in.Schema); err != nil {
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

// Whether a value is as a schema has it; root has the definitions.
func check(at string, value interface{}, schema, root map[string]interface{}) error {
	for word, said := range schema {
		if err := checkWord(at, value, word, said, schema, root); err != nil {
			return fmt.Errorf("values.schema.json: %w", err)
		}
	}
	return nil
}

func checkWord(at string, value interface{}, word string, said interface{}, schema, root map[string]interface{}) error {
	text, isText := value.(string)
	number, isNumber := value.(float64)
	object, _ := value.(map[string]interface{})
	fits := true
	switch word {
	case "$schema", "title", "definitions":
	case "$ref":
		name := strings.TrimPrefix(said.(string), "#/definitions/")
		definition := root["definitions"].(map[string]interface{})[name].(map[string]interface{})
		return check(at, value, definition, root)
	case "type":
		fits = said == kind(value) || said == "number" && isNumber
	case "enum":
		fits = false
		for _, one := range said.([]interface{}) {
			fits = fits || reflect.DeepEqual(one, value)
		}
	case "pattern":
		pattern, err := regexp.Compile(said.(string))
		if err != nil {
			return err
		}
		fits = !isText || pattern.MatchString(text)
	case "minLength":
		fits = !isText || float64(len(text)) >= said.(float64)
	case "minimum":
		fits = !isNumber || number >= said.(float64)
	case "maximum":
		fits = !isNumber || number <= said.(float64)
	case "required":
		for _, name := range said.([]interface{}) {
			if _, is := object[name.(string)]; !is {
				return fmt.Errorf("%s: %v is missing", at, name)
			}
		}
	case "items":
		list, _ := value.([]interface{})
		for place, item := range list {
			if err := check(fmt.Sprintf("%s[%d]", at, place), item, said.(map[string]interface{}), root); err != nil {
				return err
			}
		}
	case "properties":
		for name, inner := range said.(map[string]interface{}) {
			if item, is := object[name]; is {
				if err := check(at+"."+name, item, inner.(map[string]interface{}), root); err != nil {
					return err
				}
			}
		}
	case "additionalProperties":
		known, _ := schema["properties"].(map[string]interface{})
		for name, item := range object {
			if _, is := known[name]; is {
				continue
			}
			inner, is := said.(map[string]interface{})
			if !is {
				if said == false {
					return fmt.Errorf("%s: %s is not known", at, name)
				}
				continue
			}
			if err := check(at+"."+name, item, inner, root); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("%s: the schema says %q, which is not understood here", at, word)
	}
	if !fits {
		return fmt.Errorf("%s: %v, expected %s %v", at, value, word, said)
	}
	return nil
}

// As JSON schemas call it.
func kind(value interface{}) string {
	switch value := value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case float64:
		if value == float64(int64(value)) {
			return "integer"
		}
		return "number"
	case []interface{}:
		return "array"
	default:
		return "object"
	}
}
