package schema

var serviceBlock = &Block{
	Name: "service", Repeat: true,
	Doc: "Lists each instance under a name, where others look for it: in the catalog of Consul, if the node is one of a cluster, and in `meshrun status JOB` in any case. " +
		"Its check there is passing while the instance runs (and is ready, if it says so), warning while it starts or stops, and critical while it is down. " +
		"It also turns critical half a minute after the node's agent has ended, though the instance runs on; a restart of the agent takes less. " +
		"A change is made in the catalog alone and restarts nothing. The agent does it with its own Consul token, which needs `service:write` on the name.",
	Attrs: []Attr{
		{Name: "name", Kind: KindString, Required: true, Doc: "Name of the service, a label of DNS. Several processes may have the same."},
		{Name: "port", Kind: KindString, Doc: "Name of the port of the process that it is reached at. Without it, the service is listed without a port."},
		{Name: "tags", Kind: KindStringList, Doc: "Tags of the service."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server", "--listen", ":${port.http}"]
    port "http" {}
    service {
      name = "web"
      port = "http"
      tags = ["v2"]
    }
  }
}`,
}
