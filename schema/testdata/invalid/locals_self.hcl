locals { a = local.a } # ERROR: Circular locals
