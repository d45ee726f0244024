package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The ports of the first instances; the others follow.
const (
	redisPort  = 17100
	pythonPort = 17200
	nginxPort  = 17300
)

const instances = 3

const revision = `variable "revision" {
  type    = string
  default = "1"
}
`

func rollRedis(n *node) (string, tally, time.Duration, error) {
	t, took, err := n.roll("redis", revision+fmt.Sprintf(`job "redis" {
  process "server" {
    command = ["redis-server", "--port", "${%d + shard.index}", "--save", "", "--maxmemory", "${var.revision}0mb"]
    shards  = %d
    health "ping" {
      tcp      = "127.0.0.1:${%d + shard.index}"
      interval = "200ms"
    }
    update {
      max_parallel = 1
      min_healthy  = "1s"
    }
  }
}
`, redisPort, instances, redisPort), func(stop <-chan struct{}) (tally, error) { return balanced(stop, instances, incr(redisPort)) })
	return "redis, 3 instances, other maxmemory", t, took, err
}

// service is a Python service that ends what it has begun before it goes.
const service = `import http.server, signal, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("revision " + sys.argv[2] + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
`

func rollPython(n *node) (string, tally, time.Duration, error) {
	if err := os.WriteFile(filepath.Join(n.dir, "service.py"), []byte(service), 0o644); err != nil {
		return "python", tally{}, 0, err
	}
	t, took, err := n.roll("python", revision+fmt.Sprintf(`job "python" {
  process "service" {
    command = ["python3", "service.py", "${%d + shard.index}", var.revision]
    shards  = %d
    health "http" {
      url      = "http://127.0.0.1:${%d + shard.index}/"
      interval = "200ms"
    }
    update {
      max_parallel = 1
      min_healthy  = "1s"
      canary       = 1
      auto_promote = true
    }
  }
}
`, pythonPort, instances, pythonPort), func(stop <-chan struct{}) (tally, error) { return balanced(stop, instances, get(pythonPort)) })
	return "python, 3 instances, a canary first", t, took, err
}

// nginxConfig is a configuration of which several processes share the port.
func (n *node) nginxConfig(name string, port int) (path string, err error) {
	dir := filepath.Join(n.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "nginx.conf")
	return path, os.WriteFile(path, []byte(strings.NewReplacer("DIR", dir, "PORT", fmt.Sprint(port)).Replace(`daemon off;
worker_processes 1;
error_log DIR/error.log;
events { worker_connections 256; }
http {
  access_log off;
  server {
    listen 127.0.0.1:PORT reuseport;
    location / { return 200 "revision 1\n"; }
  }
}
`)), 0o644)
}

func rollNginx(n *node) (string, tally, time.Duration, error) {
	config, err := n.nginxConfig("shared", nginxPort)
	if err != nil {
		return "nginx", tally{}, 0, err
	}
	t, took, err := n.roll("nginx", revision+fmt.Sprintf(`job "nginx" {
  process "web" {
    command = ["nginx", "-c", %q, "-g", "pid ${var.revision}.${shard.index}.pid;"]
    shards  = %d
    stop {
      signal = "SIGQUIT" # it ends what it has begun
    }
    health "http" {
      url      = "http://127.0.0.1:%d/"
      interval = "200ms"
    }
    update {
      min_healthy = "1s"
    }
  }
}
`, config, instances, nginxPort), func(stop <-chan struct{}) (tally, error) {
		return wrk(stop, fmt.Sprintf("http://127.0.0.1:%d/", nginxPort))
	})
	return "nginx, 3 instances on one port, wrk", t, took, err
}

func reloadNginx(n *node) (string, tally, time.Duration, error) {
	const port = nginxPort + 1
	config, err := n.nginxConfig("alone", port)
	if err != nil {
		return "nginx", tally{}, 0, err
	}
	path := filepath.Join(n.dir, "alone.hcl")
	text := fmt.Sprintf(`job "alone" {
  process "web" {
    command = ["nginx", "-c", %q, "-g", "pid alone.pid;"]
    reload {
      files = [%q]
    }
  }
}
`, config, config)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return "nginx", tally{}, 0, err
	}
	if _, err := n.meshrun("apply", "-yes", "-wait", path); err != nil {
		return "nginx", tally{}, 0, err
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	var t tally
	go func() {
		var err error
		t, err = wrk(stop, fmt.Sprintf("http://127.0.0.1:%d/", port))
		done <- err
	}()
	time.Sleep(2 * time.Second)
	began := time.Now()
	before, err := os.ReadFile(config)
	if err != nil {
		return "nginx", tally{}, 0, err
	}
	err = os.WriteFile(config, []byte(strings.Replace(string(before), "revision 1", "revision 2", 1)), 0o644)
	for ask := get(port); err == nil && time.Since(began) < 5*time.Second; time.Sleep(100 * time.Millisecond) {
		err = ask(0)
	}
	close(stop)
	if wrong := <-done; err == nil {
		err = wrong
	}
	return "nginx, its file edited and reloaded, wrk", t, 0, err
}
