#!/usr/bin/env bash
# The first process of a node: runs in mount, pid and network namespaces of its own, which end with it.
#   node-init.sh FOLDER PROGRAMS KUBELET SERVICE
set -euo pipefail
folder=$1 programs=$2 kubelet=$3 service=$4
export PATH="$programs/usr/bin:$programs/usr/sbin:$PATH"

ip link set lo up
ip address add "$service/32" dev lo # the API server's Service, as kube-proxy in IPVS mode has it
# With an address of its own: else it has that of one of its ports, which come and go with pods, and those that stay do
# not find it any more until they ask anew.
ip link add cni0 address 0a:58:0a:58:00:01 type bridge
ip address add 10.88.0.1/24 dev cni0
ip link set cni0 up

mount -t tmpfs tmpfs /run
mkdir "$folder/over"
mount -t tmpfs tmpfs "$folder/over"
for place in lib log; do
  mkdir "$folder/over/$place" "$folder/over/$place.work"
  mount -t overlay overlay -o "lowerdir=/var/$place,upperdir=$folder/over/$place,workdir=$folder/over/$place.work" "/var/$place"
done
# The kubelet sets these, and they are the whole machine's.
for setting in vm/overcommit_memory kernel/panic kernel/panic_on_oops; do
  cat "/proc/sys/$setting" >"$folder/over/${setting//\//.}"
  mount --bind "$folder/over/${setting//\//.}" "/proc/sys/$setting"
done

containerd --config "$folder/containerd.toml" >"$folder/containerd.log" 2>&1 &
for ((i = 0; i < 600; i++)); do
  if ctr version >/dev/null 2>&1; then break; fi
  sleep 0.1
done
for image in "$folder"/images/*.tar; do ctr --namespace k8s.io image import "$image"; done

"$kubelet" --config="$folder/kubelet.json" --kubeconfig="$folder/kubelet.kubeconfig" \
  --root-dir="$folder/kubelet" --cert-dir="$folder/certificates" \
  --hostname-override=localhost --node-ip=10.88.0.1 --v=1 >"$folder/kubelet.log" 2>&1 &
wait -n
