// What Java's PKIX path builder says about a chain: "OK", or its error. Arguments: anchor, chain (PEM, leaf first), time.
import java.io.FileInputStream;
import java.security.GeneralSecurityException;
import java.security.cert.Certificate;
import java.security.cert.CertPathBuilder;
import java.security.cert.CertStore;
import java.security.cert.CertificateFactory;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.PKIXBuilderParameters;
import java.security.cert.TrustAnchor;
import java.security.cert.X509CertSelector;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import java.util.Set;

class Verify {
    public static void main(String[] arguments) throws Exception {
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        X509Certificate anchor;
        List<Certificate> chain;
        try (var first = new FileInputStream(arguments[0]); var second = new FileInputStream(arguments[1])) {
            anchor = (X509Certificate) factory.generateCertificate(first);
            chain = new ArrayList<>(factory.generateCertificates(second));
        }
        // A trust anchor built from a certificate alone ignores its name constraints: they are handed over apart.
        byte[] constraints = anchor.getExtensionValue("2.5.29.30");
        var trusted = new TrustAnchor(anchor, constraints == null ? null : unwrapped(constraints));
        var leaf = new X509CertSelector();
        leaf.setCertificate((X509Certificate) chain.get(0));
        var parameters = new PKIXBuilderParameters(Set.of(trusted), leaf);
        parameters.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(chain)));
        parameters.setRevocationEnabled(false);
        parameters.setDate(new Date(Long.parseLong(arguments[2]) * 1000));
        try {
            CertPathBuilder.getInstance("PKIX").build(parameters);
            System.out.println("OK");
        } catch (GeneralSecurityException error) {
            System.out.println(error.getMessage());
        }
    }

    /** The content of a DER octet string, whose length has one or two bytes. */
    private static byte[] unwrapped(byte[] octets) {
        int head = octets[1] >= 0 ? 2 : 2 + (octets[1] & 0x7f);
        return java.util.Arrays.copyOfRange(octets, head, octets.length);
    }
}
