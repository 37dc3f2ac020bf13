// What a BI tool does by JDBC: looks for views and their columns, reads some rows at a time, and tries to write.
// Run as `java -cp postgresql.jar Reader.java URL USER PASSWORD VIEW`.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;

public class Reader {
    public static void main(String[] said) throws SQLException {
        try (Connection conn = DriverManager.getConnection(said[0], said[1], said[2])) {
            try (ResultSet found = conn.getMetaData().getTables(null, "cofferdam", "%", new String[] {"VIEW"})) {
                while (found.next()) System.out.println("view " + found.getString("TABLE_NAME"));
            }
            try (ResultSet found = conn.getMetaData().getColumns(null, "cofferdam", said[3], "%")) {
                while (found.next())
                    System.out.println("column " + found.getString("COLUMN_NAME") + " " + found.getString("TYPE_NAME"));
            }
            conn.setAutoCommit(false);  // else the driver fetches all rows at once
            String asked = "SELECT time, value, quality FROM cofferdam." + said[3] + " WHERE tag = ? AND time > ?";
            try (PreparedStatement statement = conn.prepareStatement(asked)) {
                statement.setFetchSize(7);
                statement.setString(1, "flow_j");
                statement.setTimestamp(2, new Timestamp(0));
                double sum = 0;
                int rows = 0;
                try (ResultSet found = statement.executeQuery()) {
                    while (found.next()) {
                        if (found.getTimestamp(1).getTime() <= 0) throw new SQLException("no time");
                        sum += found.getDouble(2);
                        rows++;
                    }
                }
                System.out.println("rows " + rows + " " + sum);
            }
            conn.commit();
            try (Statement statement = conn.createStatement()) {
                statement.executeUpdate("DELETE FROM cofferdam.history");
                System.out.println("written");
            } catch (SQLException error) {
                System.out.println("refused " + error.getSQLState());
            }
        }
    }
}
