// SPDX-License-Identifier: BSD-2-Clause
// A ServerSocketChannel in a Selector, which is an epoll set. It knows nothing of gapless.
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.Iterator;

public class Nio {
    static final String VERSION = System.getenv("GAPLESS_GENERATION");

    public static void main(String[] arguments) throws IOException {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT); // before bind()
        listener.bind(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 511);
        while (true) {
            selector.select();
            for (Iterator<SelectionKey> keys = selector.selectedKeys().iterator(); keys.hasNext();) {
                SelectionKey key = keys.next();
                keys.remove();
                if (key.isAcceptable()) {
                    for (SocketChannel client; (client = listener.accept()) != null;) {
                        client.configureBlocking(false);
                        client.setOption(StandardSocketOptions.TCP_NODELAY, true);
                        client.register(selector, SelectionKey.OP_READ, new StringBuilder());
                    }
                } else {
                    try {
                        serve(key);
                    } catch (IOException e) {
                        key.channel().close();
                    }
                }
            }
        }
    }

    static void serve(SelectionKey key) throws IOException {
        SocketChannel client = (SocketChannel) key.channel();
        StringBuilder request = (StringBuilder) key.attachment();
        ByteBuffer piece = ByteBuffer.allocate(4096);
        if (client.read(piece) < 0) {
            client.close();
            return;
        }
        request.append(StandardCharsets.ISO_8859_1.decode(piece.flip()));
        if (request.indexOf("\r\n\r\n") < 0) {
            return;
        }
        boolean last = request.toString().toLowerCase().contains("\r\nconnection: close\r\n");
        String answer = "HTTP/1.1 200 OK\r\nContent-Length: " + (VERSION.length() + 1) + "\r\n"
            + (last ? "Connection: close\r\n" : "") + "\r\n" + VERSION + "\n";
        client.write(ByteBuffer.wrap(answer.getBytes(StandardCharsets.ISO_8859_1)));
        request.setLength(0);
        if (last) {
            client.close();
        }
    }
}
