// SPDX-License-Identifier: Apache-2.0

package openwhisk

import "encoding/json"

// keyValue is an entry of a list of parameters or annotations.
type keyValue struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
	Init  bool            `json:"init,omitempty"`
}

// find returns the value of a key, nil when there is none.
func find(list []keyValue, key string) json.RawMessage {
	for _, entry := range list {
		if entry.Key == key {
			return entry.Value
		}
	}
	return nil
}

type packageBody struct {
	Parameters  []keyValue `json:"parameters"`
	Annotations []keyValue `json:"annotations"`
	Publish     bool       `json:"publish"`
}

type packageView struct {
	Parameters  []keyValue      `json:"parameters"`
	Annotations []keyValue      `json:"annotations"`
	Publish     bool            `json:"publish"`
	Binding     json.RawMessage `json:"binding"`
	Actions     []struct {
		Name        string     `json:"name"`
		Annotations []keyValue `json:"annotations"`
	} `json:"actions"`
}

type actionBody struct {
	Exec        exec         `json:"exec"`
	Limits      actionLimits `json:"limits"`
	Parameters  []keyValue   `json:"parameters"`
	Annotations []keyValue   `json:"annotations"`
}

type exec struct {
	Kind  string `json:"kind"`
	Image string `json:"image,omitempty"`
	Code  string `json:"code,omitempty"`
}

// actionLimits are in milliseconds and megabytes.
type actionLimits struct {
	Timeout int64 `json:"timeout"`
	Memory  int64 `json:"memory"`
	Logs    int64 `json:"logs"`
}

type actionView struct {
	Exec struct {
		Kind  string `json:"kind"`
		Image string `json:"image"`
	} `json:"exec"`
	Limits struct {
		actionLimits
		Concurrency int `json:"concurrency"`
	} `json:"limits"`
	Annotations []keyValue `json:"annotations"`
}

// record is what is kept of an activation that has ended.
type record struct {
	ActivationID string `json:"activationId"`
	Response     *struct {
		Status  string          `json:"status"`
		Success bool            `json:"success"`
		Result  json.RawMessage `json:"result"`
	} `json:"response"`
	Duration    int64      `json:"duration"`
	Logs        []string   `json:"logs"`
	Annotations []keyValue `json:"annotations"`
}

// number returns an annotation that is a number, 0 otherwise.
func (r *record) number(key string) int64 {
	var n float64
	if json.Unmarshal(find(r.Annotations, key), &n) != nil || !(n >= 0 && n < 1<<53) {
		return 0
	}
	return int64(n)
}

func (r *record) flag(key string) bool {
	var b bool
	return json.Unmarshal(find(r.Annotations, key), &b) == nil && b
}

// apiError is the body of an error of the API itself. Code tells it from an
// action's own.
type apiError struct {
	Error string          `json:"error"`
	Code  json.RawMessage `json:"code"`
}

// info is what a deployment tells of itself without a key. Sizes are in bytes,
// times in milliseconds.
type info struct {
	Limits   map[string]json.RawMessage `json:"limits"`
	Runtimes map[string][]runtime       `json:"runtimes"`
}

type runtime struct {
	Kind       string `json:"kind"`
	Image      string `json:"image"`
	Default    bool   `json:"default"`
	Deprecated bool   `json:"deprecated"`
}
