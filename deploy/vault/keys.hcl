# What a federation service or an agent may do in Vault when its keys are there: make keys that cannot be exported, sign
# with them, and destroy those that a rotation has retired. The mount is its own: whoever may sign in it is this CA.
# `prepare` puts the name in place of @mount@.

path "@mount@/keys" {
  capabilities = ["list"]
}

path "@mount@/keys/+" {
  capabilities       = ["create", "update", "read", "delete"]
  allowed_parameters = {
    "type"                   = ["ecdsa-p256"]
    "exportable"             = [false]
    "allow_plaintext_backup" = [false]
  }
}

path "@mount@/keys/+/config" {
  capabilities       = ["create", "update"]
  allowed_parameters = {
    "deletion_allowed" = []
  }
}

path "@mount@/sign/+" {
  capabilities = ["create", "update"]
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
