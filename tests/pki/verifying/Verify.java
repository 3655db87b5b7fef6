// Asks the trust manager of Java's TLS about chains. Each line in: epoch seconds, presented and anchors in base64, and
// the role, separated by tabs and commas. Each line out: the reason, empty where it believes.

import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.InputStreamReader;
import java.security.cert.CertificateFactory;
import java.security.cert.PKIXBuilderParameters;
import java.security.cert.TrustAnchor;
import java.security.cert.X509CertSelector;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Date;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import javax.net.ssl.CertPathTrustManagerParameters;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

class Verify {
    static List<X509Certificate> parsed(String listed) throws Exception {
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        List<X509Certificate> found = new ArrayList<>();
        for (String one : listed.split(",")) {
            byte[] der = Base64.getDecoder().decode(one);
            found.add((X509Certificate) factory.generateCertificate(new ByteArrayInputStream(der)));
        }
        return found;
    }

    static String verdict(String line) throws Exception {
        String[] parts = line.split("\t");
        List<X509Certificate> presented = parsed(parts[1]);
        Set<TrustAnchor> anchors = new HashSet<>();
        for (X509Certificate anchor : parsed(parts[2])) {
            anchors.add(new TrustAnchor(anchor, null));
        }
        PKIXBuilderParameters asked = new PKIXBuilderParameters(anchors, new X509CertSelector());
        asked.setRevocationEnabled(false);
        asked.setDate(new Date(Long.parseLong(parts[0]) * 1000));
        TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
        factory.init(new CertPathTrustManagerParameters(asked));
        X509TrustManager manager = (X509TrustManager) factory.getTrustManagers()[0];
        X509Certificate[] chain = presented.toArray(new X509Certificate[0]);
        try {
            if (parts[3].equals("client")) {
                manager.checkClientTrusted(chain, "EC");
            } else {
                manager.checkServerTrusted(chain, "ECDHE_ECDSA");
            }
            return "";
        } catch (Exception refused) {
            Throwable cause = refused.getCause() == null ? refused : refused.getCause();
            return cause.toString().replaceAll("\\s+", " ");
        }
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            System.out.println(verdict(line));
        }
    }
}
