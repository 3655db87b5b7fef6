# What a federation service may do in Vault when its root is there: sign authorities with one issuer, and nothing else.
# `prepare` puts the names in place of @mount@ and @issuer@.

path "@mount@/issuer/@issuer@" {
  capabilities = ["read"]
}

# Only these parameters: no path length that would allow a CA below the CA of a cluster, no other key usages.
path "@mount@/issuer/@issuer@/sign-intermediate" {
  capabilities       = ["update"]
  allowed_parameters = {
    "csr"                 = []
    "format"              = ["pem"]
    "max_path_length"     = ["0"]
    "not_after"           = []
    "not_before_duration" = []
    "use_csr_values"      = [true]
  }
}

# Its own token, and nobody else's.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}

path "sys/capabilities-self" {
  capabilities = ["update"]
}
