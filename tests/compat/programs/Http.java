// SPDX-License-Identifier: BSD-2-Clause
// The JDK's own HTTP server. It knows nothing of gapless.
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

public class Http {
    public static void main(String[] arguments) throws Exception {
        byte[] body = (System.getenv("GAPLESS_GENERATION") + "\n").getBytes();
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 511);
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.start();
    }
}
