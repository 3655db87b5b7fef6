"""HashiCorp Vault and OpenBao, whose interface is the same, as somebody who keeps keys for us and signs with them."""
