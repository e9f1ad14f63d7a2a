// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"bytes"
	"encoding/json"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"disdel/internal/job"
)

// packagePut is the body of a PUT of a package. What is nil keeps its value.
type packagePut struct {
	binding     *binding
	unbound     bool // the binding is there and empty
	parameters  *[]pair
	annotations *[]pair
	publish     *bool
	version     *version
}

func parsePackagePut(body []byte) (put packagePut, err error) {
	o, err := parseObject(body)
	if err != nil {
		return put, err
	}
	if put.parameters, put.annotations, put.publish, put.version, err = o.common(); err != nil {
		return put, err
	}
	if !o.has("binding") {
		return put, nil
	}
	var b object
	if json.Unmarshal(o["binding"], &b) != nil {
		return put, malformed("binding malformed")
	}
	if len(b) == 0 {
		put.unbound = true
		return put, nil
	}
	name, ok := b.text("name")
	if !ok {
		return put, malformed("Object is missing required member 'name'")
	}
	namespace, ok := b.text("namespace")
	if !ok {
		return put, malformed("Object is missing required member 'namespace'")
	}
	if err := checkName(name); err != nil {
		return put, err
	}
	if err := checkNamespace(namespace); err != nil {
		return put, err
	}
	put.binding = &binding{namespace, name}
	return put, nil
}

// actionPut is the body of a PUT of an action. What is nil keeps its value.
type actionPut struct {
	exec           *exec
	limits         limitsPut
	parameters     *[]pair
	annotations    *[]pair
	delAnnotations []string
	publish        *bool
	version        *version
}

// limitsPut are the limits that are given.
type limitsPut struct {
	timeout      *time.Duration
	memory, logs *job.Bytes
	concurrency  *int
}

func parseActionPut(body []byte, cfg *Config) (put actionPut, err error) {
	o, err := parseObject(body)
	if err != nil {
		return put, err
	}
	if o.has("exec") {
		parsed, err := parseExec(o["exec"], cfg)
		if err != nil {
			return put, err
		}
		put.exec = &parsed
	}
	if o.has("limits") {
		if put.limits, err = parseLimits(o["limits"], cfg); err != nil {
			return put, err
		}
	}
	if put.parameters, put.annotations, put.publish, put.version, err = o.common(); err != nil {
		return put, err
	}
	if o.has("delAnnotations") && json.Unmarshal(o["delAnnotations"], &put.delAnnotations) != nil {
		return put, malformed("delAnnotations malformed!")
	}
	return put, nil
}

// common reads the members that packages and actions share.
func (o object) common() (parameters, annotations *[]pair, publish *bool, v *version, err error) {
	if parameters, err = o.pairs("parameters", parametersMax); err != nil {
		return nil, nil, nil, nil, err
	}
	if annotations, err = o.pairs("annotations", parametersMax); err != nil {
		return nil, nil, nil, nil, err
	}
	if o.has("publish") {
		publish = new(bool)
		if json.Unmarshal(o["publish"], publish) != nil {
			return nil, nil, nil, nil, malformed("Expected JsBoolean, but got %s", quoted(o["publish"]))
		}
	}
	if o.has("version") {
		text, ok := o.text("version")
		if !ok {
			return nil, nil, nil, nil, malformed(textVersion)
		}
		parsed, err := parseVersion(text)
		if err != nil {
			return nil, nil, nil, nil, err
		}
		v = &parsed
	}
	return parameters, annotations, publish, v, nil
}

// pairs reads an array of keys and values. Of those with one key the last counts,
// and the size of all.
func (o object) pairs(field string, limit job.Bytes) (*[]pair, error) {
	if !o.has(field) {
		return nil, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(o[field]))
	if start, err := decoder.Token(); err != nil || start != json.Delim('[') {
		return nil, malformed(textPairs)
	}
	var list []pair
	var size int64
	for count := 1; decoder.More(); count++ {
		if count > pairsMax {
			return nil, tooMany(field)
		}
		var item object
		if decoder.Decode(&item) != nil {
			return nil, malformed(textPairs)
		}
		key, ok := item.text("key")
		value, there := item["value"]
		if !ok || strings.TrimSpace(key) == "" || !there {
			return nil, malformed(textPairs)
		}
		p := pair{Key: key, Value: compact(value)}
		if item.has("init") && json.Unmarshal(item["init"], &p.Init) != nil {
			return nil, malformed(textPairs)
		}
		if size += int64(len(key) + len(p.Value)); size <= int64(limit) {
			list = append(list, p)
		}
	}
	if size > int64(limit) {
		return nil, tooLarge(field, size, int64(limit))
	}
	list = merge(nil, list)
	return &list, nil
}

// compact returns JSON without white space, in memory of its own.
func compact(raw json.RawMessage) json.RawMessage {
	var out bytes.Buffer
	if json.Compact(&out, raw) != nil {
		return raw // cannot be: it is part of a valid text
	}
	return bytes.Clone(out.Bytes())
}

var (
	imagePattern  = regexp.MustCompile(`\A(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?/)?(?:[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*/)*[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?\z`)
	digestPattern = regexp.MustCompile(`@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}\z`)
)

// parseImage checks an image's name and returns it without its digest, which
// OpenWhisk drops.
func parseImage(text string) (string, error) {
	name := digestPattern.ReplaceAllString(text, "")
	if len(name) > nameMax || !imagePattern.MatchString(name) {
		return "", malformed("could not parse image name")
	}
	return name, nil
}

// repository is an image's name without its tag.
func repository(image string) string {
	if colon := strings.LastIndexByte(image, ':'); colon > strings.LastIndexByte(image, '/') {
		return image[:colon]
	}
	return image
}

func parseExec(raw json.RawMessage, cfg *Config) (e exec, err error) {
	var o object
	if json.Unmarshal(raw, &o) != nil || o == nil {
		return e, malformed("JSON object expected")
	}
	kind, ok := o.text("kind")
	if !ok {
		return e, malformed("'kind' must be a string defined in 'exec'")
	}
	e.kind = strings.ToLower(strings.TrimSpace(kind))
	var hasCode bool
	e.code, hasCode = o.text("code")
	if !hasCode && o.has("code") {
		return e, malformed("'code' must be a string or attachment object defined in 'exec' for '%s' actions", e.kind)
	}
	e.main, _ = o.text("main")
	switch {
	case e.kind == blackbox:
		image, ok := o.text("image")
		if !ok {
			return e, malformed("'image' must be a string defined in 'exec' for 'blackbox' actions")
		}
		if e.image, err = parseImage(image); err != nil {
			return e, err
		}
		if strings.TrimSpace(e.code) == "" {
			e.code = ""
		}
	case e.kind == "sequence":
		return e, failure(http.StatusNotImplemented, "This server has no sequences: it is disdel's embedded platform. Invoke the actions one after the other.")
	default:
		managed, err := cfg.kind(e.kind)
		if err != nil {
			return e, err
		}
		if !hasCode {
			return e, malformed("'code' must be a string or attachment object defined in 'exec' for '%s' actions", e.kind)
		}
		if managed.RequireMain && e.main == "" {
			return e, malformed("'main' must be a string defined in 'exec' for '%s' actions", e.kind)
		}
		e.kind = managed.Name
	}
	if size := e.size(); size > int64(codeMax) {
		return e, tooLarge("exec", size, int64(codeMax))
	}
	e.binary = isBinary(e.code)
	return e, nil
}

// isBinary reports whether code looks like base64: that is how OpenWhisk tells.
func isBinary(code string) bool {
	if code == "" || len(code)%4 != 0 {
		return false
	}
	body := strings.TrimSuffix(strings.TrimSuffix(code, "="), "=")
	for i := range len(body) {
		c := body[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '+' && c != '/' {
			return false
		}
	}
	return true
}

// kind finds a managed kind, or says which ones there are.
func (c *Config) kind(name string) (Kind, error) {
	for _, k := range c.Kinds {
		family, _, _ := strings.Cut(k.Name, ":")
		if k.Name != name && (!k.Default || name != family+":default") {
			continue
		}
		if k.Deprecated {
			return k, failure(http.StatusBadRequest, "The '%s' runtime is no longer supported. You may read and delete but not update or invoke this action.", k.Name)
		}
		return k, nil
	}
	names := []string{"'sequence'", "'blackbox'"}
	for _, k := range c.Kinds {
		names = append(names, "'"+k.Name+"'")
	}
	slices.Sort(names)
	return Kind{}, malformed("The specified runtime '%s' is not supported by this platform. Valid values are: %s.", name, strings.Join(names, ", "))
}

// parseLimits reads the limits that are given. OpenWhisk 1.0.0 checks the range
// here, later ones in checkLimits.
func parseLimits(raw json.RawMessage, cfg *Config) (put limitsPut, err error) {
	var o object
	if json.Unmarshal(raw, &o) != nil || o == nil {
		return put, malformed("Object expected in field 'timeout'") // the first that is looked for
	}
	concurrency := "intra concurrency limit" // must be a whole number, that is
	if cfg.Generation == V1 {
		concurrency = "concurrency limit"
	}
	for _, field := range []struct {
		name, text string
		size       bool
		set        func(n int64)
	}{
		{"timeout", "time limit", false, func(n int64) {
			d := time.Duration(min(n, 1<<40)) * time.Millisecond
			put.timeout = &d
		}},
		{"memory", "memory limit", true, func(n int64) {
			b := job.Bytes(min(n, maxInstant/int64(job.MB))) * job.MB
			put.memory = &b
		}},
		{"logs", "log limit", true, func(n int64) {
			b := job.Bytes(min(n, maxInstant/int64(job.MB))) * job.MB
			put.logs = &b
		}},
		{"concurrency", concurrency, false, func(n int64) {
			c := int(min(n, 1<<30))
			put.concurrency = &c
		}},
	} {
		if !o.has(field.name) {
			continue
		}
		n, err := wholeNumber(o[field.name], strings.TrimPrefix(field.text, "intra "), field.text)
		if err != nil {
			return put, err
		}
		if field.size && n < 0 {
			return put, malformed("requirement failed: a negative size of an object is not allowed.")
		}
		field.set(max(n, -1<<30))
	}
	if cfg.Generation == V1 {
		if text := rangeText(put, cfg); text != "" {
			return put, malformed("requirement failed: %s", text)
		}
	}
	return put, nil
}

// wholeNumber reads an integer of any size, cut to 64 bits. whole is what it is
// called where it is another number.
func wholeNumber(raw json.RawMessage, what, whole string) (int64, error) {
	text := string(bytes.TrimSpace(raw))
	if len(text) == 0 || text[0] != '-' && (text[0] < '0' || text[0] > '9') || len(text) > 30 || exponent(text) {
		return 0, malformed("%s malformed", what)
	}
	value, ok := new(big.Rat).SetString(text)
	switch {
	case !ok:
		return 0, malformed("%s malformed", what)
	case !value.IsInt():
		return 0, malformed("requirement failed: %s must be whole number", whole)
	case !value.Num().IsInt64():
		return 0, malformed("%s malformed", what)
	}
	return value.Num().Int64(), nil
}

// exponent reports whether a number has an exponent that would make it huge.
func exponent(text string) bool {
	at := strings.IndexAny(text, "eE")
	return at >= 0 && len(strings.TrimLeft(text[at+1:], "+-0")) > 2
}

// checkLimits refuses limits outside the range, as OpenWhisk 2.0.0 does.
func checkLimits(put limitsPut, cfg *Config) error {
	if text := rangeText(put, cfg); text != "" {
		return failure(http.StatusBadRequest, "requirement failed: %s", text)
	}
	return nil
}

// rangeText says which given limit is outside its range; "" when none is.
func rangeText(put limitsPut, cfg *Config) string {
	l := cfg.Limits
	size := func(name string, value *job.Bytes, least, most job.Bytes) string {
		unit := func(b job.Bytes) string { return megabytes(b) }
		if cfg.Generation == V1 {
			unit = func(b job.Bytes) string { return formatInt(int64(b)) + " B" }
		} else if name == "memory" {
			name = "memory size"
		}
		switch {
		case value == nil:
			return ""
		case *value > most:
			return name + " " + megabytes(*value) + " exceeds allowed threshold of " + unit(most)
		case *value < least:
			return name + " " + megabytes(*value) + " below allowed threshold of " + unit(least)
		}
		return ""
	}
	if put.timeout != nil {
		text := "duration " + milliseconds(*put.timeout)
		switch {
		case *put.timeout > l.TimeoutMax:
			return text + " exceeds allowed threshold of " + milliseconds(l.TimeoutMax)
		case *put.timeout < l.TimeoutMin:
			return text + " below allowed threshold of " + milliseconds(l.TimeoutMin)
		}
	}
	if text := size("memory", put.memory, l.MemoryMin, l.MemoryMax); text != "" {
		return text
	}
	if text := size("log size", put.logs, l.LogsMin, l.LogsMax); text != "" {
		return text
	}
	if put.concurrency != nil {
		switch n := *put.concurrency; {
		case n > concurrencyMax:
			return "concurrency " + formatInt(int64(n)) + " exceeds allowed threshold of " + formatInt(concurrencyMax)
		case n < 1:
			return "concurrency " + formatInt(int64(n)) + " below allowed threshold of 1"
		}
	}
	return ""
}

// concurrencyMax is how many calls a container serves at once.
const concurrencyMax = 1
