locals {
  list = ["b", "a", "b"]
}

job "functions" {
  process "p" {
    command = [
      "./p",
      upper("a"), lower("A"), join(",", local.list), split("|", "x|y")[1], format("%05.1f", 3.14159),
      join(",", concat(["a"], ["b"])), merge({ a = "1" }, { a = "2" }).a, join(",", [for n in range(3) : tostring(n)]),
      length(local.list), lookup({ a = "b" }, "a", "c"), contains(local.list, "a"), join(",", keys({ z = 1, y = 2 })),
      join(",", values({ z = "1", y = "2" })), join(",", flatten([["a"], ["b", ["c"]]])), join(",", distinct(local.list)),
      coalesce(null, "x"), max(1, 2), min(1, 2), ceil(1.2), floor(1.8), abs(-3), replace("aXb", "X", "-"),
      regex("[0-9]+", "abc123"), trimspace("  x "), trimprefix("foobar", "foo"), trimsuffix("foobar", "bar"),
      jsonencode({ a = [1, true, null] }), jsondecode("{\"a\":\"b\"}").a, tonumber("12"), tobool("true"),
      join(",", sort(local.list)), join(",", reverse(local.list)), join(",", slice(local.list, 0, 2)), element(local.list, 4),
      join(",", compact(["a", "", "b"])), substr("hello", 1, 3), zipmap(["a"], ["b"]).a, join(",", toset(local.list)),
      env("MESHRUN_NOT_SET", "fallback"), trimspace(file("functions.txt")),
    ]
  }
}
