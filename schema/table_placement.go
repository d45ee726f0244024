package schema

var placementBlock = &Block{
	Name: "placement",
	Doc: "Which nodes the shards may go to, by the labels of the nodes (`labels` in a node's configuration). " +
		"Without it any node may have them. A change moves the shards that must not stay where they are, and touches no other. " +
		"Shards that no node can take wait, with the reason in `meshrun status`, until one can.",
	Blocks: []*Block{
		{
			Name: "constraint", Repeat: true,
			Doc: "Allows only nodes that carry a label with a value. A node has to meet every constraint.",
			Attrs: []Attr{
				{Name: "label", Kind: KindString, Required: true, Doc: "The label."},
				{Name: "is", Kind: KindString, Required: true, Doc: "Its value."},
			},
		},
		{
			Name: "spread", Repeat: true,
			Doc: "Distributes the shards evenly over the values of a label, give or take one, as far as the nodes have room. " +
				"Nodes without the label count as one value more. Of several labels, the one with the fewest values is divided first, " +
				"and the others within each of its values.",
			Attrs: []Attr{
				{Name: "label", Kind: KindString, Required: true, Doc: "The label."},
			},
		},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    shards  = 4
    placement {
      constraint {
        label = "disk"
        is    = "ssd"
      }
      spread { label = "zone" }
    }
  }
}`,
}
