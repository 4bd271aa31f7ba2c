//go:build linux

package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// manifests are the objects in kubernetes/.
type manifests struct {
	deployment apps.Deployment
	services   []core.Service
	account    core.ServiceAccount
	role       rbac.Role
	binding    rbac.RoleBinding
	budget     policy.PodDisruptionBudget
	autoscaler autoscaling.HorizontalPodAutoscaler
	network    networking.NetworkPolicy
}

// loadManifests reads them into the types of Kubernetes' API, strictly: a field that
// Kubernetes does not have is an error, and so is one that is given twice.
func loadManifests(t *testing.T) (m manifests) {
	t.Helper()
	files, err := filepath.Glob("kubernetes/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, 6)
	found := map[string]int{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		for text := range strings.SplitSeq(string(b), "\n---\n") {
			var head struct {
				v1.TypeMeta   `json:",inline"`
				v1.ObjectMeta `json:"metadata"`
			}
			require.NoError(t, yaml.Unmarshal([]byte(text), &head), file)
			require.Equal(t, map[string]string{label: "channels"}, head.Labels, "%s %s", file, head.Kind)
			require.Empty(t, head.Namespace, "kubectl -n says where")
			kind := head.APIVersion + " " + head.Kind
			found[kind]++
			var into any
			switch kind {
			case "apps/v1 Deployment":
				into = &m.deployment
			case "v1 Service":
				m.services = append(m.services, core.Service{})
				into = &m.services[len(m.services)-1]
			case "v1 ServiceAccount":
				into = &m.account
			case "rbac.authorization.k8s.io/v1 Role":
				into = &m.role
			case "rbac.authorization.k8s.io/v1 RoleBinding":
				into = &m.binding
			case "policy/v1 PodDisruptionBudget":
				into = &m.budget
			case "autoscaling/v2 HorizontalPodAutoscaler":
				into = &m.autoscaler
			case "networking.k8s.io/v1 NetworkPolicy":
				into = &m.network
			default:
				require.FailNow(t, "a kind that this test does not know", "%s: %s", file, kind)
			}
			require.NoError(t, yaml.UnmarshalStrict([]byte(text), into), "%s: %s", file, kind)
		}
	}
	require.Equal(t, map[string]int{"apps/v1 Deployment": 1, "v1 Service": 2, "v1 ServiceAccount": 1, "rbac.authorization.k8s.io/v1 Role": 1, "rbac.authorization.k8s.io/v1 RoleBinding": 1,
		"policy/v1 PodDisruptionBudget": 1, "autoscaling/v2 HorizontalPodAutoscaler": 1, "networking.k8s.io/v1 NetworkPolicy": 1}, found)
	return m
}

const label = "app.kubernetes.io/name"

func TestKubernetesDeployment(t *testing.T) {
	t.Parallel()
	d := loadManifests(t).deployment
	pod := d.Spec.Template.Spec
	require.Len(t, pod.Containers, 1)
	c := pod.Containers[0]
	f := readFlags(t, c.Args)
	starts(t, c.Args)

	// It is given the time to end.
	preStop := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	require.Positive(t, preStop)
	require.GreaterOrEqual(t, time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second, preStop+f.end(t)+5*time.Second)

	// Its ports are those that it listens on.
	ports := map[string]string{}
	for _, p := range c.Ports {
		ports[p.Name] = strconv.Itoa(int(p.ContainerPort))
	}
	require.Equal(t, map[string]string{"http": port(t, f.one(t, "addr")), "metrics": port(t, f.one(t, "metrics")), "mesh": port(t, f.one(t, "mesh-listen"))}, ports)
	require.Equal(t, ports["metrics"], d.Spec.Template.Annotations["prometheus.io/port"])
	for path, probe := range map[string]*core.Probe{"/readyz": c.ReadinessProbe, "/healthz": c.LivenessProbe} {
		require.Equal(t, path, probe.HTTPGet.Path)
		require.Equal(t, "http", probe.HTTPGet.Port.String())
	}
	require.Nil(t, c.StartupProbe)
	quick := func(p *core.Probe) int32 { return p.PeriodSeconds * p.FailureThreshold }
	require.Less(t, quick(c.ReadinessProbe), int32(preStop/time.Second))
	require.GreaterOrEqual(t, quick(c.LivenessProbe), int32(60), "a restart helps little, and costs all connections")

	// It is as weak as the image allows.
	require.True(t, *pod.SecurityContext.RunAsNonRoot)
	require.Equal(t, user, strconv.FormatInt(*pod.SecurityContext.RunAsUser, 10))
	require.Equal(t, core.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
	require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
	require.Equal(t, []core.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)

	// What the flags and variables name is there.
	secret := pod.Volumes[0].Secret
	require.Equal(t, int32(0o440), *secret.DefaultMode)
	var paths []string
	for _, i := range secret.Items {
		paths = append(paths, c.VolumeMounts[0].MountPath+"/"+i.Path)
	}
	require.ElementsMatch(t, paths, []string{f.one(t, "mesh-key-file"), f.one(t, "jwt-secret-file"), f.one(t, "admin-token-file")})
	variables := map[string]core.EnvVar{}
	for _, e := range c.Env {
		variables[e.Name] = e
	}
	require.Equal(t, "$(POD)", f.one(t, "node"))
	require.Contains(t, variables, "POD")
	require.Equal(t, secret.SecretName, variables["CHANNELS_REDIS"].ValueFrom.SecretKeyRef.Name)
	below(t, f, variables["GOMEMLIMIT"].Value, c.Resources.Limits.Memory().Value())
	require.NotContains(t, c.Resources.Limits, core.ResourceCPU)
	require.Contains(t, c.Resources.Requests, core.ResourceCPU, "the autoscaler needs it")
	created := read(t, "kubernetes/deployment.yaml")
	for _, key := range []string{variables["CHANNELS_REDIS"].ValueFrom.SecretKeyRef.Key, "mesh-key", "jwt-secret", "admin-token"} {
		require.Contains(t, created, "--from-literal="+key+"=")
	}
}

// Everything is about the same pods.
func TestKubernetesSelectors(t *testing.T) {
	m := loadManifests(t)
	pods := m.deployment.Spec.Template.Labels
	require.NotEmpty(t, pods)
	for what, s := range map[string]*v1.LabelSelector{
		"the Deployment": m.deployment.Spec.Selector,
		"the budget":     m.budget.Spec.Selector,
		"the network":    &m.network.Spec.PodSelector,
		"the spread":     m.deployment.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector,
		"the mesh, in":   m.network.Spec.Ingress[2].From[0].PodSelector,
		"the mesh, out":  m.network.Spec.Egress[0].To[0].PodSelector,
	} {
		require.Equal(t, &v1.LabelSelector{MatchLabels: pods}, s, what)
	}
	named := map[string]bool{}
	for _, p := range m.deployment.Spec.Template.Spec.Containers[0].Ports {
		named[p.Name] = true
	}
	for _, s := range m.services {
		require.Equal(t, pods, s.Spec.Selector, s.Name)
		require.True(t, named[s.Spec.Ports[0].TargetPort.String()], s.Name)
	}
	name := m.deployment.Name
	target := m.autoscaler.Spec.ScaleTargetRef
	require.Equal(t, []string{"apps/v1", "Deployment", name}, []string{target.APIVersion, target.Kind, target.Name})
	require.Nil(t, m.deployment.Spec.Replicas, "each kubectl apply would undo what the autoscaler did")
	require.GreaterOrEqual(t, *m.autoscaler.Spec.MinReplicas, int32(2))
	require.Equal(t, m.account.Name, m.deployment.Spec.Template.Spec.ServiceAccountName)
}

// The replicas find each other by a name without an address of its own.
func TestKubernetesMesh(t *testing.T) {
	m := loadManifests(t)
	f := readFlags(t, m.deployment.Spec.Template.Spec.Containers[0].Args)
	s := m.services[1]
	require.Equal(t, core.ClusterIPNone, s.Spec.ClusterIP)
	require.True(t, s.Spec.PublishNotReadyAddresses)
	require.Equal(t, s.Name+":"+strconv.Itoa(int(s.Spec.Ports[0].Port)), f.one(t, "mesh-dns"))
	require.NotEqual(t, core.ClusterIPNone, m.services[0].Spec.ClusterIP)
}

// Only those ports are open that somebody listens on.
func TestKubernetesNetworkPolicy(t *testing.T) {
	m := loadManifests(t)
	require.Equal(t, []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress}, m.network.Spec.PolicyTypes)
	listens := map[int32]bool{}
	for _, p := range m.deployment.Spec.Template.Spec.Containers[0].Ports {
		listens[p.ContainerPort] = true
	}
	open := map[int32]bool{}
	for _, rule := range m.network.Spec.Ingress {
		require.Len(t, rule.From, 1, "nobody else")
		for _, p := range rule.Ports {
			open[p.Port.IntVal] = true
		}
	}
	require.Equal(t, listens, open)
}

// The operators' page may scale this Deployment, and nothing else.
func TestKubernetesRole(t *testing.T) {
	m := loadManifests(t)
	only := []string{m.deployment.Name}
	require.Equal(t, []rbac.PolicyRule{
		{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, ResourceNames: only, Verbs: []string{"get"}},
		{APIGroups: []string{"apps"}, Resources: []string{"deployments/scale"}, ResourceNames: only, Verbs: []string{"patch"}},
	}, m.role.Rules)
	require.Equal(t, rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "Role", Name: m.role.Name}, m.binding.RoleRef)
	require.Equal(t, []rbac.Subject{{Kind: rbac.ServiceAccountKind, Name: m.account.Name}}, m.binding.Subjects)
}

var mebibytes = regexp.MustCompile(`^(\d+)MiB$`)

// connection is what an idle one takes, with its part of the kernel's memory: see
// docs/operations.md.
const connection = 11 << 10

// below requires that Go's limit for its memory is a little below that of the system,
// which counts more, and that what the server may take fits into it.
func below(t *testing.T, f flags, soft string, hard int64) {
	t.Helper()
	m := mebibytes.FindStringSubmatch(soft)
	require.NotNil(t, m, soft)
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		require.NoError(t, err)
		return n
	}
	n := number(m[1]) << 20
	require.Less(t, n, hard*95/100)
	require.Greater(t, n, hard*80/100)
	require.Less(t, number(f.one(t, "max-connections"))*connection+number(f.one(t, "max-queued-bytes")), n)
}
