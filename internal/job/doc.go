// SPDX-License-Identifier: Apache-2.0

// Package job holds the nouns that the other packages share: what a user asks
// for ([Spec]), what decides the bits of the result ([Numerics]), what decides
// only memory and time ([Resources]), what one invocation is asked to do and
// answers ([Task], [TaskResult]), and what is reported at the end ([Record]).
//
// It hides nothing and decides nothing: data, validation and formatting only.
// It imports the standard library alone, so that the worker, the planner and
// the reports can all depend on it at no cost.
package job
