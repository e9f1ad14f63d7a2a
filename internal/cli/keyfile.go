// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"disdel/internal/platform/whiskapi"
)

const configHomeEnv = "XDG_CONFIG_HOME"

// keyFileMax bounds what is read of a key file.
const keyFileMax = 64 << 10

// readKeyFile returns the key in a file in wskprops form, or makes the file with
// a new one. The file then names the address, and nobody else can read it.
func readKeyFile(path, address string) (user whiskapi.User, made bool, err error) {
	text, err := readPrivate(path)
	made = errors.Is(err, os.ErrNotExist)
	if err != nil && !made {
		return user, false, err
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if made {
		if lines, err = newKeyLines(); err != nil {
			return user, false, err
		}
	}
	properties := map[string]string{}
	for i, line := range lines {
		name, value, ok := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if name == "APIHOST" {
			lines[i] = "APIHOST=" + address
			value = address
		}
		properties[name] = strings.TrimSpace(value)
	}
	if properties["APIHOST"] == "" {
		lines = append(lines, "APIHOST="+address)
	}
	user.Namespace = "guest"
	user.UUID, user.Secret, _ = strings.Cut(properties["AUTH"], ":")
	if len(user.UUID) != 36 || len(user.Secret) != 64 {
		return user, false, fmt.Errorf("key file %s: its line AUTH=uuid:secret is missing or no key; delete the file to get a new one", path)
	}
	if fresh := strings.Join(lines, "\n") + "\n"; fresh != text {
		err = writePrivate(path, fresh)
	}
	return user, made, err
}

// readPrivate reads a small file that only its owner may read.
func readPrivate(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("key file: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("key file: %w", err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("key file %s is no regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("key file %s may be read by others (mode %v): run chmod 600 on it, or delete it to get a new key", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(file, keyFileMax+1))
	if err == nil && len(text) > keyFileMax {
		err = fmt.Errorf("%s is larger than %d bytes", path, keyFileMax)
	}
	if err != nil {
		return "", fmt.Errorf("key file: %w", err)
	}
	return string(text), nil
}

// writePrivate writes a file that only its owner may read, whole or not at all.
func writePrivate(path, text string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("key file: %w", err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".wskprops-") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // after the rename there is nothing to remove
	if _, err = file.WriteString(text); err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// newKeyLines makes a random key.
func newKeyLines() ([]string, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // a random UUID, RFC 9562
	x := hex.EncodeToString(id[:])
	secret := (rand.Text() + rand.Text() + rand.Text())[:64]
	return []string{
		"# Made by disdel platform serve. Whoever can read this can run actions.",
		fmt.Sprintf("AUTH=%s-%s-%s-%s-%s:%s", x[:8], x[8:12], x[12:16], x[16:20], x[20:], secret),
	}, nil
}
