{{- /* Labels of everything here. */ -}}
{{- define "calico-azure.labels" -}}
app.kubernetes.io/name: calico-azure
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ quote .Chart.AppVersion }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "calico-azure.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- /* How pods' host-side interfaces begin: azv is Azure CNI's, cali that of Calico's plug-in, veth that of ptp. */ -}}
{{- define "calico-azure.interfacePrefix" -}}
{{- if .Values.interfacePrefix -}}
{{ .Values.interfacePrefix }}
{{- else if eq .Values.networking "azure-cni" -}}
azv
{{- else if eq .Values.networking "flannel" -}}
cali
{{- else if eq .Values.networking "udr" -}}
cali,veth
{{- else if eq .Values.networking "host-local" -}}
veth
{{- else if eq .Values.networking "auto" -}}
cali,azv
{{- else -}}
{{ fail "networking: expected auto, udr, flannel, azure-cni or host-local" }}
{{- end -}}
{{- end -}}

{{- /* What leads to other nodes and out: the NIC, and flannel's device, which the agent finds. */ -}}
{{- define "calico-azure.fabricInterface" -}}
{{ default "auto" .Values.fabricInterface }}
{{- end -}}

{{- /* Something where flannel's daemon may keep a file of what it gave the node. */ -}}
{{- define "calico-azure.mayBeFlannel" -}}
{{- if eq .Values.networking "flannel" -}}
yes
{{- else if eq .Values.networking "auto" -}}
yes
{{- end -}}
{{- end -}}

{{- /* Root with these capabilities, and nothing else. */ -}}
{{- define "calico-azure.securityContext" -}}
privileged: false
# Files of the node that the agent uses are root's; the capabilities that root has elsewhere are dropped.
runAsUser: 0
runAsGroup: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile:
  type: RuntimeDefault
capabilities:
  drop: [ALL]
  add:
    # Maps and programs, and batches of their operations.
    - BPF
    # Attaching to interfaces, with tc, tcx or XDP, and to the control group; reading links, addresses and routes of the node.
    - NET_ADMIN
    # The verifier then follows pointers into the stack and into maps as these programs use them.
    - PERFMON
    # Kernels before 5.11 count maps as locked memory, whose limit must be raised.
    - SYS_RESOURCE
{{- end -}}

{{- /* What of the node's file system the agent and cleanup use. bpffs is not mounted at its usual place, where the AppArmor profile of
       containers denies writing. Pins are made in the node's own mount, so nothing has to be propagated. */ -}}
{{- define "calico-azure.volumeMounts" -}}
- name: bpffs
  mountPath: /bpffs
- name: run
  mountPath: /run/calico-azure
- name: cgroup
  mountPath: /host-cgroup
  readOnly: true
- name: cni
  mountPath: /host-cni
  readOnly: true
{{- end -}}

{{- /* Of those that put the chained plug-in into the node's network configuration, or take it out. */ -}}
{{- define "calico-azure.pluginMounts" -}}
- name: cni-bin
  mountPath: /host-cni-bin
- name: cni-conf
  mountPath: /host-cni-conf
{{- end -}}

{{- define "calico-azure.pluginVolumes" -}}
- name: cni-bin
  hostPath:
    path: {{ .Values.cniPlugin.binDir }}
    type: DirectoryOrCreate
- name: cni-conf
  hostPath:
    path: {{ .Values.cniPlugin.confDir }}
    type: DirectoryOrCreate
{{- end -}}

{{- /* Root, whose the node's files are, and no capabilities. */ -}}
{{- define "calico-azure.pluginSecurityContext" -}}
privileged: false
runAsUser: 0
runAsGroup: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile:
  type: RuntimeDefault
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "calico-azure.volumes" -}}
- name: bpffs
  hostPath:
    path: /sys/fs/bpf
    type: Directory
- name: run
  hostPath:
    path: /run/calico-azure
    type: DirectoryOrCreate
- name: cgroup
  hostPath:
    path: {{ .Values.hostCgroup }}
    type: Directory
- name: cni
  hostPath:
    path: /var/lib/cni
    type: DirectoryOrCreate
{{- end -}}
