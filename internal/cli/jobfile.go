// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"disdel/internal/job"
	"disdel/internal/jsontext"
)

// maxJobFile bounds a file with a job's options, a model among them.
const maxJobFile = 2 * job.MaxModelSpec

// flagNames has the fields of a job's spec whose flags are called otherwise than
// the field with dashes for underscores.
var flagNames = map[string]string{"learning_rate": "lr", "replicas": "workers"}

// noFlag are the fields that no flag sets: the argument, the command, and what
// --model reads from a file.
var noFlag = map[string]bool{"kind": true, "dataset": true, "model_spec": true}

func flagOf(field string) string {
	if name := flagNames[field]; name != "" {
		return name
	}
	return strings.ReplaceAll(field, "_", "-")
}

func (o *options) jobFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.jobFile, "job", "", "JSON file with values for these flags and the data set, as \"disdel plan --json\" prints them under spec; flags that are given win")
}

// datasetOrJob wants the name of a data set, unless a file with the job's options
// may have one.
func (o *options) datasetOrJob(cmd *cobra.Command, args []string) error {
	if len(args) == 0 && o.jobFile != "" {
		return nil
	}
	return oneDataset(cmd, args)
}

// readJob completes the spec of a command by the file that --job names, and by the
// defaults.
func (o *options) readJob(cmd *cobra.Command, args []string) error {
	if o.jobFile != "" {
		text, err := readSmall(o.jobFile, maxJobFile)
		if err == nil {
			err = o.mergeJob(text, cmd)
		}
		if err != nil {
			return usagef("--job %s: %w", o.jobFile, err)
		}
	}
	if len(args) == 1 {
		o.spec.Dataset = args[0]
	}
	if o.spec.Dataset == "" {
		return usagef("--job %s: it names no data set; give one: %s DATASET --job %s", o.jobFile, cmd.CommandPath(), o.jobFile)
	}
	o.spec = o.spec.WithDefaults()
	return nil
}

// mergeJob takes from a file what no flag says.
func (o *options) mergeJob(text []byte, cmd *cobra.Command) error {
	given, err := parseJob(text)
	if err != nil {
		return err
	}
	if kind := given.spec.Kind; kind != "" && kind != o.spec.Kind {
		return fmt.Errorf("%s: kind is %q, %s wants %q", given.place("kind"), kind, commandName(cmd), o.spec.Kind)
	}
	to, from := reflect.ValueOf(&o.spec).Elem(), reflect.ValueOf(given.spec)
	for i := range to.NumField() {
		field := jsonName(to.Type().Field(i))
		name := flagOf(field)
		switch {
		case !given.has(field) || field == "kind":
		case field == "model_spec" && cmd.Flags().Changed("model"):
		case cmd.Flags().Changed(name):
		case !noFlag[field] && cmd.Flags().Lookup(name) == nil, field == "model_spec" && o.spec.Kind != job.Train:
			return fmt.Errorf("%s: %s has no %s", given.place(field), commandName(cmd), field)
		default:
			to.Field(i).Set(from.Field(i))
		}
	}
	return nil
}

// givenJob is a file with a job's options: which fields it has, and where.
type givenJob struct {
	text   []byte
	spec   job.Spec
	fields map[string]json.RawMessage
	starts map[string]int64
}

func (g givenJob) has(field string) bool { return g.fields[field] != nil }

// place says where a field of the file is.
func (g givenJob) place(field string) string { return jsontext.Place(g.text, g.starts[field]) }

// parseJob reads the JSON of a job's spec. Memory and time may also be strings, as
// flags take them; as numbers they are bytes and nanoseconds.
func parseJob(text []byte) (g givenJob, err error) {
	g.text = text
	if err := jsontext.Decode(text, &g.fields); err != nil {
		return g, err
	}
	g.starts = jsontext.Fields(text)
	spec := reflect.ValueOf(&g.spec).Elem()
	known := map[string]reflect.Value{}
	for i := range spec.NumField() {
		known[jsonName(spec.Type().Field(i))] = spec.Field(i)
	}
	for _, field := range slices.SortedFunc(maps.Keys(g.fields), func(a, b string) int { return cmp.Compare(g.starts[a], g.starts[b]) }) {
		value, ok := known[field]
		if !ok {
			return g, fmt.Errorf("%s: unknown field %.40q, known are: %s", g.place(field), field, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		raw := g.fields[field]
		if string(raw) == "null" { // as if it were not there
			delete(g.fields, field)
			continue
		}
		switch at := value.Addr().Interface().(type) {
		case *job.Bytes:
			err = wordOr(raw, bytesValue{at}, at)
		case *time.Duration:
			err = wordOr(raw, durationValue{at}, at)
		default:
			err = json.Unmarshal(raw, at)
		}
		if err != nil {
			if kind := (*json.UnmarshalTypeError)(nil); errors.As(err, &kind) {
				err = fmt.Errorf("%.40s is not %s", raw, jsontext.TypeName(value.Type()))
			}
			return g, fmt.Errorf("%s: %s: %w", g.place(field), field, err)
		}
	}
	return g, nil
}

// wordOr reads a string as a flag would, anything else as JSON.
func wordOr(raw json.RawMessage, flag interface{ Set(text string) error }, into any) error {
	var word string
	if json.Unmarshal(raw, &word) == nil && raw[0] == '"' {
		return flag.Set(word)
	}
	return json.Unmarshal(raw, into)
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
