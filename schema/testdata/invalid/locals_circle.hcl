locals {
  a = local.b # ERROR: Circular locals
  b = local.c
  c = "x-${local.a}"
}
