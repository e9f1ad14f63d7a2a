// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"fmt"
	"net/http"
)

// apiError is an answer that is an error.
type apiError struct {
	status int
	text   string
	// rejection is one that OpenWhisk makes before its own code is asked: it has
	// no CORS headers.
	rejection bool
	// plain answers are text, have no transaction id and end the connection.
	plain bool
}

func (e *apiError) Error() string { return e.text }

const (
	textNoResource    = "The requested resource does not exist."
	textNoRoute       = "The requested resource could not be found."
	textNoCredentials = "The resource requires authentication, which was not supplied with the request"
	textBadCredential = "The supplied authentication is invalid"
	textConflict      = "resource already exists"
	textWrongType     = "Resource by this name exists but is not in this collection."
	textOnBinding     = "Operation not permitted on package binding."
	textPairs         = "parameters malformed!" // annotations as well
	textVersion       = "semantic version malformed"
	textFinal         = "Request defines parameters that are not allowed (e.g., reserved properties)."
	textUnavailable   = "The server is currently unavailable (because it is overloaded or down for maintenance)."
	textInternal      = "There was an internal server error."
)

func failure(status int, format string, args ...any) error {
	return &apiError{status: status, text: fmt.Sprintf(format, args...)}
}

func rejection(status int, format string, args ...any) error {
	return &apiError{status: status, text: fmt.Sprintf(format, args...), rejection: true}
}

// malformed refuses a body.
func malformed(format string, args ...any) error {
	return rejection(http.StatusBadRequest, "The request content was malformed:\n"+format, args...)
}

// badQuery refuses a query parameter.
func badQuery(name, format string, args ...any) error {
	return rejection(http.StatusBadRequest, "The query parameter '"+name+"' was malformed:\n"+format, args...)
}

// forbidden refuses what belongs to somebody else.
func forbidden(resource string) error {
	return failure(http.StatusForbidden, "The supplied authentication is not authorized to access '%s'.", resource)
}

func notFound() error { return failure(http.StatusNotFound, textNoResource) }

func noRoute() error { return rejection(http.StatusNotFound, textNoRoute) }

// tooLarge refuses what exceeds a size limit; field is exec, parameters,
// annotations or Request.
func tooLarge(field string, size, limit int64) error {
	return failure(http.StatusRequestEntityTooLarge, "%s larger than allowed: %d > %d bytes.", field, size, limit)
}

// tooMany refuses parameters or annotations.
func tooMany(field string) error {
	return failure(http.StatusRequestEntityTooLarge, "%s larger than allowed: more than %d of them.", field, pairsMax)
}
