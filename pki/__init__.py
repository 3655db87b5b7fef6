"""Who is who: SPIFFE identities, authorities, certificates, trust bundles and one-time tokens.

Decisions (`spiffe`, `profiles`, `issue`, `validate`, `bundle`, `policy`, `token`, `renewal`) are pure. The
shells (`durable`, `keys`, `journal`, `signer`, `authority`, `root`) write files and sign. Nothing here opens
a socket.
"""
