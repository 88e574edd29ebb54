#!/bin/bash
# Builds a small stand-in for every image that critest refers to and pushes them to a local plain-HTTP registry, under
# their names without the host. Deterministic: the same inputs give the same digests.
# usage: make-images.sh REGISTRY      (host:port)
# env:   BUSYBOX  static busybox (default: /bin/busybox of Debian's busybox-static)
# needs: umoci, skopeo, musl-gcc, tar
set -euo pipefail
REG=$1
SRC=$(cd "$(dirname "$0")" && pwd)
W=${W:-$(mktemp -d)}
if [ -z "${BUSYBOX:-}" ]; then
  BUSYBOX=/bin/busybox
fi
DATE=2024-01-01T00:00:00Z
mkdir -p "$W"; L=$W/oci
for p in pause web nnp sh; do musl-gcc -static -Os -s -o $W/$p.bin $SRC/$p.c; done
umoci init --layout $L

dtar() { # dtar DIR OUT : deterministic tar (hard links kept, root owner)
  tar -C "$1" --sort=name --mtime=@1700000000 --owner=0 --group=0 --numeric-owner --format=gnu -cf "$2" .
}
# ---- base root file system: busybox with one HARD link per applet (masking /bin/ls must not mask /bin/busybox)
mkroot() {
  local r=$1; rm -rf $r; mkdir -p $r/{bin,sbin,etc,proc,sys,dev,root,tmp,home,var/run,var/www,usr/bin,usr/sbin,run}
  chmod 1777 $r/tmp; chmod 700 $r/root
  cp $BUSYBOX $r/bin/busybox; chmod 755 $r/bin/busybox
  for a in $($BUSYBOX --list); do [ "$a" = busybox ] || ln -f $r/bin/busybox "$r/bin/$a"; done
  rm -f $r/bin/sh; cp $W/sh.bin $r/bin/sh; chmod 755 $r/bin/sh
  # busybox-static of Debian has no pgrep/ipcs: small scripts stand in
  if ! $BUSYBOX --list | grep -qx pgrep; then
    rm -f $r/bin/pgrep; printf '#!/bin/sh\nr=1\nfor p in /proc/[0-9]*; do c=$(cat $p/comm 2>/dev/null); case "$c" in *"$1"*) echo ${p#/proc/}; r=0;; esac; done\nexit $r\n' > $r/bin/pgrep; chmod 755 $r/bin/pgrep
  fi
  if ! $BUSYBOX --list | grep -qx ipcs; then
    rm -f $r/bin/ipcs; printf '#!/bin/sh\necho "------ Shared Memory Segments --------"\necho "key shmid owner perms bytes nattch"\nwhile read key id perms size rest; do [ "$key" = key ] || echo "$key $id $perms $size"; done < /proc/sysvipc/shm\n' > $r/bin/ipcs; chmod 755 $r/bin/ipcs
  fi
  cat > $r/etc/passwd <<'P'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
P
  cat > $r/etc/group <<'P'
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
wheel:x:10:root
mail:x:8:
www-data:x:33:
users:x:100:
nogroup:x:65534:
P
  printf '127.0.0.1 localhost\n' > $r/etc/hosts
  printf 'root:*:::::::\n' > $r/etc/shadow; chmod 640 $r/etc/shadow
}
mkroot $W/base; dtar $W/base $W/base.tar

new() { # new TAG LAYER_TAR... -- CONFIG_ARGS...
  local tag=$1; shift; umoci new --image $L:$tag
  while [ $# -gt 0 ] && [ "$1" != -- ]; do umoci raw add-layer --image $L:$tag --history.created $DATE --history.comment standin --history.created_by make-images.sh "$1" ; shift; done
  [ "${1:-}" = -- ] && shift
  umoci config --image $L:$tag --created $DATE --author standin --architecture amd64 --os linux --no-history --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
push() { # push TAG NAME...
  local t=$1; shift; for n in "$@"; do
    skopeo copy -q --dest-tls-verify=false oci:$L:$t docker://$REG/$n
    printf '%-70s %s\n' "$n" "$(skopeo inspect --tls-verify=false --format '{{.Digest}}' docker://$REG/$n)"; done
}
layer() { dtar $W/$1 $W/$1.tar; } # layer DIRNAME

# pause
mkdir -p $W/pause; cp $W/pause.bin $W/pause/pause; layer pause
new pause $W/pause.tar -- --config.entrypoint /pause --config.user 65535:65535
push pause pause:3.6 pause:3.8 pause:3.9
# a runtime that needs a sandbox image takes this one: an image id of its own, since critest removes pause:3.9
mkdir -p $W/pause310; cp $W/pause.bin $W/pause310/pause; : > $W/pause310/3.10; layer pause310
new pause310 $W/pause310.tar -- --config.entrypoint /pause --config.user 65535:65535
push pause310 pause:3.10

# busybox (default test container image, and the benchmark's docker.io names)
new busybox $W/base.tar -- --config.cmd sh
push busybox e2e-test-images/busybox:1.29-2 e2e-test-images/busybox:1.29-4
# names of critest's image benchmark: must be OTHER image ids than the default test image, since RemoveImage on one
# name drops every name of that id in containerd (parallel container benchmark then fails with "image not found")
mkdir -p $W/m-lib; : > $W/m-lib/lib; layer m-lib; new m-lib $W/base.tar $W/m-lib.tar -- --config.cmd sh
for p in library docker/library; do push m-lib $p/busybox:1 $p/busybox:1-glibc $p/busybox:1-musl $p/busybox:1-uclibc $p/busybox:1.35.0-glibc $p/busybox:latest; done

# nginx (port 80), hostnet-nginx (port 12003), httpd (port 80)
mkdir -p $W/nginx/usr/sbin; cp $W/web.bin $W/nginx/usr/sbin/nginx; layer nginx
new nginx $W/base.tar $W/nginx.tar -- --config.entrypoint /usr/sbin/nginx --config.entrypoint 80 --config.entrypoint /var/run/nginx.pid --config.entrypoint 'nginx: master process nginx -g daemon off;' --config.exposedports 80/tcp --config.stopsignal SIGQUIT
push nginx e2e-test-images/nginx:1.14-2 e2e-test-images/nginx:1.14-4 library/nginx:latest
new hostnet $W/base.tar $W/nginx.tar -- --config.entrypoint /usr/sbin/nginx --config.entrypoint 12003 --config.entrypoint /var/run/nginx.pid --config.entrypoint 'nginx: master process nginx -g daemon off;' --config.exposedports 12003/tcp --config.stopsignal SIGQUIT
push hostnet k8s-staging-cri-tools/hostnet-nginx-amd64:latest k8s-staging-cri-tools/hostnet-nginx:latest
mkdir -p $W/httpd/usr/local/bin; cp $W/web.bin $W/httpd/usr/local/bin/httpd; layer httpd
new httpd $W/base.tar $W/httpd.tar -- --config.entrypoint /usr/local/bin/httpd --config.entrypoint 80 --config.entrypoint /var/run/httpd.pid --config.entrypoint 'httpd -DFOREGROUND' --config.entrypoint "[core:notice] [pid 1] AH00094: Command line: 'httpd -D FOREGROUND'" --config.exposedports 80/tcp --config.stopsignal SIGWINCH
push httpd e2e-test-images/httpd:2.4.39-4

# nonewprivs: setuid root /nnp
mkdir -p $W/nnp; cp $W/nnp.bin $W/nnp/nnp; chmod 4755 $W/nnp/nnp; layer nnp
new nnp $W/base.tar $W/nnp.tar -- --config.cmd /nnp
push nnp e2e-test-images/nonewprivs:1.3

# plain test images: busybox + one marker file each
marker() { mkdir -p $W/m-$1; : > $W/m-$1/$1; layer m-$1; new m-$1 $W/base.tar $W/m-$1.tar -- --config.cmd sh; }
for n in test-image-1 test-image-2 test-image-3 test-image-latest test-image-digest; do marker $n; push m-$n k8s-staging-cri-tools/$n:latest; done
marker same-image; push m-same-image k8s-staging-cri-tools/test-image-tags:1 k8s-staging-cri-tools/test-image-tags:2 k8s-staging-cri-tools/test-image-tags:3
marker test; push m-test k8s-staging-cri-tools/test-image-tag:test
marker all;  push m-all  k8s-staging-cri-tools/test-image-tag:all

# user images
new user-uid        $W/base.tar -- --config.cmd sh --config.user 1002;          push user-uid        k8s-staging-cri-tools/test-image-user-uid:latest
new user-name       $W/base.tar -- --config.cmd sh --config.user www-data;      push user-name       k8s-staging-cri-tools/test-image-user-username:latest
new user-uid-group  $W/base.tar -- --config.cmd sh --config.user 1003:1004;     push user-uid-group  k8s-staging-cri-tools/test-image-user-uid-group:latest
new user-name-group $W/base.tar -- --config.cmd sh --config.user www-data:1004; push user-name-group k8s-staging-cri-tools/test-image-user-username-group:latest
# predefined group
mkdir -p $W/pg/etc $W/pg/home/default-user; cp $W/base/etc/passwd $W/base/etc/group $W/pg/etc/
echo 'default-user:x:1000:1000:Linux User,,,:/home/default-user:/bin/sh' >> $W/pg/etc/passwd
printf 'default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n' >> $W/pg/etc/group; layer pg
new pg $W/base.tar $W/pg.tar -- --config.cmd sh --config.user 1000
push pg k8s-staging-cri-tools/test-image-predefined-group:latest
echo "digest image: gcr.io/k8s-staging-cri-tools/test-image-digest@$(skopeo inspect --tls-verify=false --format '{{.Digest}}' docker://$REG/k8s-staging-cri-tools/test-image-digest:latest)"
