#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs tests on an emulated processor with AVX-512, for machines without:
#
#	CGO_ENABLED=0 go test -c -o /tmp/kernel.test ./internal/nn/kernel
#	test/avx512/run.sh /tmp/kernel.test -test.v -test.short -test.run 'TestProducts|TestElementLoops|TestConvOrder'
#
# A Linux kernel starts in Bochs with the test program as all there is; what it writes
# goes to standard output, and the exit code says whether it passed. It is some fifty
# times as slow as the machine below, after half a minute for the start, and LIMIT
# seconds (1800) at most. Debian's packages: bochs bochs-term bochsbios vgabios isolinux
# syslinux-common genisoimage cpio linux-image-cloud-amd64, the last one installed or
# unpacked, with KERNEL naming its vmlinuz.
set -euo pipefail
command -v bochs >/dev/null || { echo "run.sh: bochs is not installed" >&2; exit 1; }
program=$(realpath "$1")
shift
kernel=${KERNEL:-$(ls /boot/vmlinuz-*-cloud-amd64 | tail -n 1)}
limit=${LIMIT:-1800}
work=$(mktemp -d)
reader=
trap '[[ -z $reader ]] || kill "$reader" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir -p "$work"/{init,iso,root/{proc,dev,tmp}}

cat >"$work/init/main.go" <<'X'
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

func main() {
	syscall.Mount("proc", "/proc", "proc", 0, "")
	syscall.Mount("dev", "/dev", "devtmpfs", 0, "")
	syscall.Mount("tmp", "/tmp", "tmpfs", 0, "")
	args, _ := os.ReadFile("/args")
	c := exec.Command("/program", strings.Split(strings.TrimSuffix(string(args), "\n"), "\n")...)
	c.Stdout, c.Stderr, c.Dir = os.Stdout, os.Stdout, "/tmp"
	fmt.Println("exit:", c.Run())
	syscall.Sync()
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}
X
CGO_ENABLED=0 go build -o "$work/root/init" "$work/init/main.go"
cp "$program" "$work/root/program"
printf '%s\n' "$@" >"$work/root/args"
(cd "$work/root" && find . | cpio --create --format=newc --quiet) >"$work/iso/initrd"
cp "$kernel" "$work/iso/vmlinuz"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/iso/"
cat >"$work/iso/isolinux.cfg" <<'X'
default linux
label linux
 kernel vmlinuz
 append initrd=initrd console=ttyS0,115200 quiet noxsaves clearcpuid=xsavec,xsaves,xgetbv1 mitigations=off nokaslr tsc=unstable lpj=4000000 rdinit=/init
X
genisoimage -quiet -o "$work/disk" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table "$work/iso"
cat >"$work/bochsrc" <<X
megs: 1024
cpu: model=corei7_skylake_x, count=1, ips=50000000, reset_on_triple_fault=0
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0-master: type=cdrom, path=$work/disk, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial
display_library: term
log: $work/log
panic: action=fatal
clock: sync=none
speaker: enabled=0
X
echo continue >"$work/commands"

touch "$work/serial"
tail --follow --lines=+1 "$work/serial" &
reader=$!
# Bochs wants a terminal, and an input that does not end.
TERM=vt100 timeout "$limit" script -qfc "bochs -q -f $work/bochsrc -rc $work/commands" "$work/screen" < <(exec sleep "$limit") >/dev/null 2>&1 || true
kill "$reader" 2>/dev/null || true
sleep 1
grep --quiet $'^exit: <nil>\r*$' "$work/serial"
