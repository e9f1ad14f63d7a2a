// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"testing"

	"disdel/internal/store"
	"disdel/internal/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) (a, b store.Store) {
		s := New()
		return s, s.Share()
	})
}
